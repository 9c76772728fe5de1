//! `snapshot`

mod announce;
mod freeze;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use crate::base::path::printable;
use crate::cli::args::{NiceMode, PrecopyMode, SnapshotArgs};
use crate::cli::commands::guard;
use crate::cli::config::{Nice, Precopy};
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::fault;
use crate::cli::global::{Context, volatile};
use crate::cli::service::{self, Chosen, Nodes};
use crate::cli::wanted;
use crate::format::control::HexBytes;
use crate::format::manifest::{RecordKind, SourceRecord};
use crate::host;
use crate::host::fs::volume;
use crate::host::health::{Health, HealthUrl};
use crate::host::node::Node;
use crate::host::signal::Interrupt;
use crate::host::users::SystemOwners;
use crate::host::watchdog::this_program;
use crate::intake::forest::IntakeError;
use crate::intake::manners::Manners;
use crate::intake::plan::ReadPlan;
use crate::ops::session::Session;
use crate::ops::snapshot::plan::Outlook;
use crate::ops::snapshot::{CommitFault, SnapshotError, SnapshotInput, SnapshotReport, snapshot};
use crate::ops::sources::{NodeFiles, SourcesInput, Wanted, connect_version};
use crate::ops::window;
use crate::store::writer::WriteError;
use crate::window::evidence::Rules;
use crate::window::phases::{AbortReason, Aborted, ArmError, Mode, Plan};
use crate::window::site_lock::LockError;
use announce::Announce;

/// Threads that look and read, at most: more do not help a disk.
const THREADS_MAX: usize = 8;

/// Time that a stop has at least.
const STOP_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Time that a start has at least, however little a stop has.
const START_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Takes a snapshot and shows it.
///
/// # Errors
/// As `docs/manual.md` lists them by exit code.
pub fn run(context: &Context, args: &SnapshotArgs) -> Result<Exit, CliError> {
    let interrupt = Interrupt::install().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    let repository = context.repository()?;
    let chosen = service::choose(context, args)?;
    let units = chosen.units();
    let mut input = wanted::input(context, &args.source, &units, Some(&repository))?;
    let _fetched = wanted::fetched(context, &mut input, &units)?;
    let mut wanted = wanted::wanted(&input)?;
    if let Some(exit) = aside(context, args, &wanted, &interrupt)? {
        return Ok(exit);
    }
    let (version, mut warnings) = looked_at(context, &wanted);
    let nodes = Nodes::chosen(context, args)?;
    nodes.try_all(context, &units)?;
    let window = plan_window(context, args, &wanted, chosen, &nodes)?;
    let state_dir = context.state_dir()?;
    if window.mode.stops() && !args.allow_volatile_state && !args.dry_run {
        refuse_volatile(&state_dir)?;
    }
    let mut against = against(&wanted);
    let told = wanted.warnings.len();
    // They go with the run.
    let _files = match args.dry_run {
        true => None,
        false => node_files(context, args, &nodes, (&input, &units), &mut wanted, &mut against)?,
    };
    for warning in &wanted.warnings[told..] {
        context.said.warn(&warning.message);
        warnings.push(warning.message.clone());
    }
    refuse(&against, args)?;
    let plan = read_plan(args, &wanted)?;
    if args.dry_run {
        let outlook = outlook(context, args, &window, &plan);
        return shown::dry_run(context, &wanted, &window, &plan, &outlook);
    }
    if window.mode.stops() {
        Interrupt::stay_awake().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    }
    let session = context.session()?;
    let guards = guard::outside(&state_dir, &context.clock);
    let owners = SystemOwners::default();
    let announce = Announce::chosen(context, args, &wanted.site);
    let given = SnapshotInput {
        window,
        plan,
        sources: source_records(&wanted),
        sqlite_dirs: wanted.sqlite_dir.clone().into_iter().collect(),
        connect_version: version,
        against,
        warnings,
        freeze: freeze::wish(context, args)?,
        tags: args.tags.clone(),
        precopy: precopies(context, args),
        wait_idle: args.service.wait_idle.unwrap_or(context.loaded.config.service.wait_idle),
        lock_wait: args.lock_wait.unwrap_or_default(),
        min_free: context.loaded.config.repository.min_free,
        read_timeout: read_timeout(context, args)?,
        state_dir,
        threads: std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX),
        manners: manners(context, args),
        before_reading: &|| announce.begins(),
        owners: &owners,
        clock: Arc::clone(&context.clock),
        interrupt,
        guards,
        progress: &*context.progress,
    };
    take(context, session, &given, &announce)
}

/// What is read, with what is left out and counted.
fn read_plan(args: &SnapshotArgs, wanted: &Wanted) -> Result<ReadPlan, CliError> {
    let planned = if args.allow_capture { wanted.plan_anyway() } else { wanted.plan() };
    let mut plan = planned.map_err(|error| wanted::failed(&error))?;
    plan.left_out.extend(freeze::left_out(&plan));
    plan.counted = wanted.sources.iter().filter(|s| s.dir).map(|s| s.path.clone()).collect();
    Ok(plan)
}

/// Takes it, shows what it came to, and tells whoever was told of its beginning.
fn take(
    context: &Context,
    session: Session,
    given: &SnapshotInput<'_>,
    announce: &Announce<'_>,
) -> Result<Exit, CliError> {
    let done = snapshot(session, given);
    context.progress.finish();
    let ended = match &done {
        Ok(report) => exit_of(context, report, shown::report(context, report)),
        Err(error) => Err(failed_in(context, error)),
    };
    announce.ends(done.as_ref().ok(), &ended);
    ended
}

/// Has a second process do it all where a file server may be gone: a process with a thread that waits
/// for one cannot end.
fn aside(
    context: &Context,
    args: &SnapshotArgs,
    wanted: &Wanted,
    interrupt: &Interrupt,
) -> Result<Option<Exit>, CliError> {
    let arguments: Vec<_> = std::env::args_os().collect();
    if args.aside.is_some() || args.dry_run || arguments.iter().any(|word| word == "--") {
        return Ok(None);
    }
    let failed = |error: std::io::Error| CliError::from_error(Kind::Failed, &error);
    let mounts = volume::mounts().map_err(failed)?;
    if !wanted.sources.iter().any(|source| volume::touches_network(&mounts, &source.path)) {
        return Ok(None);
    }
    Interrupt::stay_awake().map_err(failed)?;
    let clock = &*context.clock;
    let code = host::aside::run(this_program(), &arguments, "--aside", interrupt, clock);
    Ok(Some(Exit::of(code.map_err(failed)?)))
}

/// The exit code of a result. One that could not be shown hides neither a capture nor a service that
/// is down.
fn exit_of(
    context: &Context,
    report: &SnapshotReport,
    shown: Result<(), CliError>,
) -> Result<Exit, CliError> {
    let mut exit = Exit::Ok;
    if report.body.problems_total > 0 || report.unwell.is_some() {
        exit = exit.and(Exit::Problems);
    }
    if report.body.kind == RecordKind::Capture {
        exit = exit.and(Exit::Capture);
    }
    if !report.not_running.is_empty() {
        exit = exit.and(Exit::ServiceDown);
    }
    match shown {
        Err(error) if exit == Exit::Ok => Err(error),
        Err(error) => {
            context.said.warn(&error.message);
            Ok(exit)
        }
        Ok(()) => Ok(exit),
    }
}

/// The version of Connect, and what an operator should know, which is said.
fn looked_at(context: &Context, wanted: &Wanted) -> (Option<String>, Vec<String>) {
    let mut warnings: Vec<String> = wanted.warnings.iter().map(|w| w.message.clone()).collect();
    let version = wanted.program.as_ref().and_then(|program| {
        connect_version(program, &*context.clock).map_err(|why| warnings.push(why)).ok()
    });
    for warning in &warnings {
        context.said.warn(warning);
    }
    (version, warnings)
}

/// Refuses a run that could not become a snapshot, unless a capture will do.
fn refuse(against: &[String], args: &SnapshotArgs) -> Result<(), CliError> {
    if against.is_empty() || args.allow_capture {
        return Ok(());
    }
    let hint = "--allow-capture keeps what can be kept, as a capture that is never restorable";
    Err(CliError::new(Kind::Refused, against.join("; ")).hint(hint))
}

/// How reading gives way to others while the service lives.
fn manners(context: &Context, args: &SnapshotArgs) -> Manners {
    let (typed, config) = (&args.neighbour, &context.loaded.config.window);
    let nice = match typed.nice {
        Some(mode) => mode == NiceMode::Auto,
        None => config.nice == Nice::Auto,
    };
    let mut manners = Manners::none(Arc::clone(&context.clock));
    if nice {
        manners = manners.giving_way();
    }
    match typed.max_read_rate.or(config.max_read_rate) {
        Some(rate) => manners.at_most(rate),
        None => manners,
    }
}

/// What is asked after the start, where that is configured.
fn health(context: &Context) -> Result<Option<Arc<dyn Health>>, CliError> {
    let Some(url) = &context.loaded.config.service.health_url else { return Ok(None) };
    let asked = HealthUrl::new(url).map_err(|error| CliError::from_error(Kind::Config, &error))?;
    Ok(Some(Arc::new(asked)))
}

/// What a run would do; how long it would take is known where the repository can be looked into.
fn outlook(context: &Context, args: &SnapshotArgs, window: &Plan, plan: &ReadPlan) -> Outlook {
    let looked = context.session_for_a_look();
    let known = looked.and_then(|session| context.catalogue(&session.repository));
    if let Err(error) = &known {
        context.said.warn(&format!("the repository cannot be looked into: {}", error.message));
    }
    Outlook::without_reading(window, plan, precopies(context, args), known.ok().as_ref())
}

fn read_timeout(context: &Context, args: &SnapshotArgs) -> Result<Duration, CliError> {
    let given = args.read_timeout.unwrap_or(context.loaded.config.window.read_timeout);
    if given.is_zero() {
        return Err(CliError::new(Kind::Config, "a read timeout of 0 leaves no time to read in"));
    }
    Ok(given)
}

fn precopies(context: &Context, args: &SnapshotArgs) -> bool {
    match args.service.precopy {
        Some(mode) => mode == PrecopyMode::Auto,
        None => context.loaded.config.window.precopy == Precopy::Auto,
    }
}

/// What of the site cannot be kept by this version.
fn against(wanted: &Wanted) -> Vec<String> {
    let mut against: Vec<String> = wanted.unknown_database.iter().cloned().collect();
    if wanted.has_postgres() {
        against.push(
            "the site keeps its database in PostgreSQL, which this version cannot capture yet: what \
             is read would be without its database"
                .into(),
        );
    }
    against.extend(wanted.missing());
    against
}

fn refuse_volatile(state_dir: &std::path::Path) -> Result<(), CliError> {
    let found = volatile(state_dir).map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    match found {
        Some(what) => Err(CliError::new(
            Kind::Refused,
            format!(
                "the state directory {} lies on {what} and would not survive a reboot: a service \
                 that is stopped when the machine dies would stay stopped",
                state_dir.display()
            ),
        )
        .hint("set CABK_STATE_DIR to a directory on a disk, or use --allow-volatile-state")),
        None => Ok(()),
    }
}

fn plan_window(
    context: &Context,
    args: &SnapshotArgs,
    wanted: &Wanted,
    chosen: Chosen,
    nodes: &Nodes,
) -> Result<Plan, CliError> {
    let config = &context.loaded.config;
    if config.service.stop_timeout < STOP_TIMEOUT_MIN {
        let message = "service.stop_timeout is less than a second: no service could stop in it";
        return Err(CliError::new(Kind::Config, message));
    }
    let stopped = args.service.already_stopped;
    let (services, mode) = chosen.services_on(context, nodes, &wanted.site, stopped)?;
    // Where nothing is stopped there is nothing that would have to go away behind a stop.
    let usual = if mode == Mode::NoService { Duration::ZERO } else { config.service.wait_quiet };
    Ok(Plan {
        site: wanted.site.clone(),
        services,
        others: nodes.observers(context),
        mode,
        leave_stopped: args.service.leave_stopped,
        allow_capture: args.allow_capture,
        stop_timeout: config.service.stop_timeout,
        start_timeout: config.service.stop_timeout.max(START_TIMEOUT),
        max_downtime: args.service.max_downtime.unwrap_or(config.service.max_downtime),
        wait_quiet: args.service.wait_quiet.unwrap_or(usual),
        health: if mode.stops() { health(context)? } else { None },
        rules: Rules {
            asserts: config.evidence.assert.clone(),
            allow: config.evidence.allow.iter().map(Into::into).collect(),
        },
    })
}

/// Reads the configurations of the other nodes; what cannot be read stands against a snapshot.
fn node_files(
    context: &Context,
    args: &SnapshotArgs,
    nodes: &Nodes,
    (input, units): (&SourcesInput, &[String]),
    wanted: &mut Wanted,
    against: &mut Vec<String>,
) -> Result<Option<NodeFiles>, CliError> {
    let afar = input.afar.iter().map(|afar| afar.node.to_string());
    let configured = Nodes::named(context, &afar.collect::<Vec<_>>())?;
    let mut others: Vec<Node> = nodes.reached(context).collect();
    let more =
        configured.reached(context).filter(|node| others.iter().all(|o| o.name() != node.name()));
    others.extend(more.collect::<Vec<_>>());
    if others.is_empty() || input.gcfg.is_none() {
        return Ok(None);
    }
    let failed = |error: std::io::Error| CliError::from_error(Kind::Failed, &error);
    let state_dir = context.state_dir()?;
    let began = context.clock.monotonic();
    let files = loop {
        if let Some(files) = NodeFiles::new(&state_dir, &wanted.site).map_err(failed)? {
            break files;
        }
        let waited = context.clock.monotonic().saturating_sub(began);
        if waited >= args.lock_wait.unwrap_or_default() {
            let message = format!("another snapshot of {} is being taken", wanted.site);
            return Err(CliError::new(Kind::InUse, message)
                .hint("--lock-wait waits for the other run to end"));
        }
        context.clock.sleep(Duration::from_millis(200));
    };
    for node in others {
        if let Err(error) = files.add(&node, units, input, wanted) {
            against.push(format!("the configuration of {} cannot be read: {error}", node.name()));
        }
    }
    Ok(Some(files))
}

fn source_records(wanted: &Wanted) -> Vec<SourceRecord> {
    let record = |source: &crate::ops::sources::WantedSource| SourceRecord {
        roles: source.roles.iter().map(|r| r.as_str().to_owned()).collect(),
        path: source.database.is_none().then(|| HexBytes(source.path.clone())),
        database: source.database.clone(),
        setting: source.setting.clone(),
        bytes: 0,
        dir: source.dir,
    };
    wanted.sources.iter().filter(|s| s.exists || s.database.is_some()).map(record).collect()
}

/// As [`failed`]; where a service is down and an intent is left, that is what to look at first.
fn failed_in(context: &Context, error: &SnapshotError) -> CliError {
    let shown = failed(error);
    let SnapshotError::Arm(ArmError::NoneRuns(_)) = error else { return shown };
    let left = context.state_dir().ok().and_then(|dir| window::status(&dir, &*context.clock).ok());
    match left.is_some_and(|status| status.open) {
        true => shown.hint(
            "a run left a window open: `cabk window recover` starts what it had stopped; \
             --already-stopped says that it is stopped on purpose",
        ),
        false => shown,
    }
}

/// How a user meets a [`SnapshotError`].
fn failed(error: &SnapshotError) -> CliError {
    match error {
        SnapshotError::Lock(LockError::Busy { .. }) => CliError::from_error(Kind::InUse, error)
            .hint("--lock-wait waits for the other run to end"),
        SnapshotError::Lock(LockError::Interrupted) => {
            CliError::from_error(Kind::Interrupted, error)
        }
        SnapshotError::Refused(_) => CliError::from_error(Kind::Refused, error)
            .hint("--allow-capture goes on; the result is a capture, which is never restorable"),
        SnapshotError::Freeze(_) => CliError::from_error(Kind::Refused, error)
            .hint("--freeze auto takes what there is, --freeze none reads all in the window"),
        SnapshotError::Arm(arm) => arm_failed(arm),
        SnapshotError::Aborted(aborted) => aborted_failed(aborted),
        SnapshotError::LeftStopped(_) => CliError::from_error(Kind::ServiceDown, error),
        SnapshotError::Session(session) => fault::session(session),
        SnapshotError::Memory(memory) => fault::memory(memory),
        SnapshotError::Intent(intent) => fault::intent(intent),
        SnapshotError::Commit { source, not_running } => {
            let mut shown = match &**source {
                CommitFault::Build(IntakeError::Interrupted) => {
                    CliError::from_error(Kind::Interrupted, error)
                }
                CommitFault::Write(_) | CommitFault::Build(_) | CommitFault::Commit(_) => {
                    CliError::from_error(Kind::Failed, error)
                }
            };
            if let Some(first) = not_running.first() {
                shown = CliError::from_error(Kind::ServiceDown, error).hint(first.message());
            }
            shown
        }
        SnapshotError::Intake(IntakeError::Interrupted) => {
            CliError::from_error(Kind::Interrupted, error)
        }
        SnapshotError::Intake(IntakeError::Write(WriteError::MinFree { .. })) => {
            CliError::from_error(Kind::Refused, error)
                .hint("`min_free` in [repository] says how much must stay free")
        }
        _ => CliError::from_error(Kind::Failed, error),
    }
}

fn arm_failed(error: &ArmError) -> CliError {
    let kind = match error {
        ArmError::NoSuchService { .. } => Kind::Usage,
        ArmError::Interrupted => Kind::Interrupted,
        ArmError::Intent(_) | ArmError::Lock(_) | ArmError::Identity(_) => Kind::Failed,
        _ => Kind::Refused,
    };
    let shown = CliError::from_error(kind, error);
    match error {
        ArmError::NoSuchService { .. } => shown.hint(
            "name the unit with --service, or the commands with --stop-command, --start-command \
             and --status-command",
        ),
        ArmError::NoneRuns(_) => shown.hint("--already-stopped says that it is stopped on purpose"),
        _ => shown,
    }
}

fn aborted_failed(aborted: &Aborted) -> CliError {
    if let Some(first) = aborted.restarted.not_running.first() {
        return CliError::from_error(Kind::ServiceDown, aborted).hint(first.message());
    }
    let kind = match &aborted.reason {
        AbortReason::Interrupted => Kind::Interrupted,
        _ => Kind::Failed,
    };
    CliError::from_error(kind, aborted)
}

/// A path for people.
fn path(bytes: &[u8]) -> String {
    printable(bytes)
}
