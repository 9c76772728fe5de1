//! The verbs as the demonstration calls them: the same as those of the commands, with other values.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ManifestId;
use crate::base::path::{bytes, is_within};
use crate::base::progress::{OpenWindow, Progress, Total};
use crate::base::secret::Password;
use crate::cli::exit::Exit;
use crate::format::control::HexBytes;
use crate::format::manifest::SourceRecord;
use crate::host::clock::Clock;
use crate::host::commands::{CommandService, Commands};
use crate::host::machine;
use crate::host::signal::Interrupt;
use crate::host::users::SystemOwners;
use crate::intake::manners::Manners;
use crate::ops::demo::{Failed, Put, Stage, Taken, Verbs};
use crate::ops::init::{COMPRESSION, Init, init};
use crate::ops::restore::{RestoreInput, Target, restore};
use crate::ops::session::{self, Location, Session};
use crate::ops::snapshot::{FreezeWish, SnapshotInput, snapshot};
use crate::ops::sources::{SourcesInput, Wanted, gather};
use crate::record::open::RecordError;
use crate::record::snapshot::Snapshot;
use crate::store::reader::Reader;
use crate::store::repository::Unlock;
use crate::window::evidence::Rules;
use crate::window::guard::NoGuards;
use crate::window::intent::ServiceKind;
use crate::window::phases::{Mode, Plan, PlannedService};

/// Threads that look, read and write.
const THREADS: usize = 2;

/// The verbs of this program.
pub(super) struct Own {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) interrupt: Interrupt,
}

fn failed(error: &dyn std::error::Error) -> Failed {
    with_exit(Exit::Failed, error)
}

fn with_exit(exit: Exit, error: &dyn std::error::Error) -> Failed {
    let mut message = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        message.push_str(": ");
        message.push_str(&source.to_string());
        below = source.source();
    }
    Failed { exit: exit.code(), message }
}

impl Own {
    fn session(stage: &Stage) -> Result<Session, Failed> {
        let places = &stage.places;
        let place = Location { repository: places.repository(), cache: Some(places.cache()) };
        let password = Password::new(stage.password.expose().to_vec());
        let opened = session::open(&place, || Some(Unlock::Password(password)));
        let mut session = opened.map_err(|e| failed(&e))?;
        session.sync().map_err(|e| failed(&e))?;
        Ok(session)
    }

    fn wanted(stage: &Stage) -> Result<Wanted, Failed> {
        let places = &stage.places;
        let left_out = vec![
            (places.repository(), "the repository"),
            (places.cache(), "the cache of cabk"),
            (places.state(), "the state directory of cabk"),
        ];
        let input = SourcesInput {
            gcfg: Some(places.gcfg()),
            env_file: Some(places.env_file()),
            left_out,
            ..SourcesInput::default()
        };
        let mut wanted = gather(&input).map_err(|e| failed(&e))?;
        // A real installation on this machine has licence files of its own: not this site's.
        let site = places.site();
        wanted.sources.retain(|source| is_within(&source.path, bytes(&site)));
        Ok(wanted)
    }

    fn window(&self, stage: &Stage, site: &str) -> Plan {
        let how = ServiceKind::Commands {
            stop: (&stage.stop).into(),
            start: (&stage.start).into(),
            status: Some((&stage.status).into()),
        };
        let commands = Commands {
            stop: stage.stop.clone(),
            start: stage.start.clone(),
            status: Some(stage.status.clone()),
        };
        let clock = Arc::clone(&self.clock);
        let service = CommandService::new(commands, OsStr::new(site), "local", clock);
        Plan {
            site: site.to_owned(),
            services: vec![PlannedService { service: Arc::new(service), how, precaution: None }],
            others: Vec::new(),
            mode: Mode::StopAndStart,
            leave_stopped: false,
            allow_capture: false,
            stop_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(30),
            max_downtime: Duration::from_secs(60),
            // The rendering of the third snapshot never leaves.
            wait_quiet: Duration::from_millis(200),
            health: None,
            rules: Rules { asserts: stage.asserts.clone(), allow: Vec::new() },
        }
    }
}

fn records(wanted: &Wanted) -> Vec<SourceRecord> {
    let there = wanted.sources.iter().filter(|source| source.exists);
    there
        .map(|source| SourceRecord {
            roles: source.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            path: Some(HexBytes(source.path.clone())),
            database: None,
            setting: source.setting.clone(),
            bytes: 0,
            dir: source.dir,
        })
        .collect()
}

impl Verbs for Own {
    fn init(&self, stage: &Stage) -> Result<(), Failed> {
        let path = stage.places.repository();
        let made = init(&Init {
            path: &path,
            password: Some(&stage.password),
            compression: COMPRESSION,
            parity_percent: 0,
            related_to: None,
            now: self.clock.now(),
        });
        made.map(|_| ()).map_err(|e| failed(&e))
    }

    fn snapshot(&self, stage: &Stage, progress: &dyn Progress) -> Result<Taken, Failed> {
        let session = Self::session(stage)?;
        let wanted = Self::wanted(stage)?;
        let mut plan = wanted.plan().map_err(|e| failed(&e))?;
        plan.counted = wanted.sources.iter().filter(|s| s.dir).map(|s| s.path.clone()).collect();
        let owners = SystemOwners::default();
        let input = SnapshotInput {
            window: self.window(stage, &wanted.site),
            plan,
            sources: records(&wanted),
            sqlite_dirs: wanted.sqlite_dir.clone().into_iter().collect(),
            connect_version: None,
            against: Vec::new(),
            warnings: wanted.warnings.iter().map(|warning| warning.message.clone()).collect(),
            freeze: FreezeWish::none(),
            tags: vec!["demo".into()],
            precopy: true,
            wait_idle: Duration::ZERO,
            lock_wait: Duration::ZERO,
            min_free: 0,
            read_timeout: Duration::from_secs(60),
            state_dir: stage.places.state(),
            threads: THREADS,
            manners: Manners::none(Arc::clone(&self.clock)),
            before_reading: &|| {},
            owners: &owners,
            clock: Arc::clone(&self.clock),
            interrupt: self.interrupt.clone(),
            // Its service ends by itself, and is nobody's.
            guards: Arc::new(NoGuards),
            progress: &Untold(progress),
        };
        let report = snapshot(session, &input);
        progress.finish();
        let report = report.map_err(|e| failed(&e))?;
        let not_running = report.not_running.iter().map(|down| down.message()).collect();
        Ok(Taken { id: report.id, body: report.body, not_running })
    }

    fn restore(
        &self,
        stage: &Stage,
        id: &ManifestId,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<Put, Failed> {
        let session = Self::session(stage)?;
        let snapshot = Snapshot::open(&session.repository, *id).map_err(|error| match &error {
            RecordError::NotRestorable { .. } => with_exit(Exit::NotRestorable, &error),
            _ => failed(&error),
        })?;
        let reader = session.reader();
        let owners = SystemOwners::default();
        let host = machine::hostname().map_err(|e| failed(&e))?;
        let input = RestoreInput {
            reader: &reader,
            snapshot: &snapshot,
            subtree: None,
            target: Target::Directory(target.to_owned()),
            include: Vec::new(),
            exclude: Vec::new(),
            kept: Vec::new(),
            delete: false,
            keep_extra: false,
            numeric_ids: false,
            map_user: Vec::new(),
            map_group: Vec::new(),
            owners: &owners,
            host: &host,
            with_license: false,
            dry_run: false,
            verify: false,
            interrupt: &self.interrupt,
            progress,
            threads: THREADS,
        };
        let report = restore(&input);
        progress.finish();
        let report = report.map_err(|e| failed(&e))?;
        Ok(Put {
            files: report.files,
            dirs: report.dirs,
            bytes: report.bytes,
            problems: report.problems.into_iter().map(|p| (p.path, p.error)).collect(),
        })
    }

    fn reader(&self, stage: &Stage) -> Result<Reader, Failed> {
        Ok(Self::session(stage)?.reader())
    }
}

/// Progress without remarks: the demo tells its own story, and the plan of each snapshot is not in it.
struct Untold<'a>(&'a dyn Progress);

impl Progress for Untold<'_> {
    fn phase(&self, name: &str, total: Option<Total>) {
        self.0.phase(name, total);
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.0.advance(files, bytes);
    }

    fn window(&self, open: Option<OpenWindow>) {
        self.0.window(open);
    }

    fn message(&self, _: &str) {}

    fn warn(&self, text: &str) {
        self.0.warn(text);
    }

    fn finish(&self) {
        self.0.finish();
    }
}
