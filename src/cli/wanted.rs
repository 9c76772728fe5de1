//! What the options and the configuration say about what is read.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::args::SourceArgs;
use super::exit::{CliError, Kind};
use super::global::Context;
use super::service::Nodes;
use crate::base::path::bytes;
use crate::host::systemd::Systemd;
use crate::ops::sources::{Afar, SourcesError, SourcesInput, Wanted, gather};

/// Bytes of a process's environment that are looked at.
const ENVIRONMENT_MAX: u64 = 4 << 20;

/// Joins options and configuration. `units` are those of the service, where it is systemd's;
/// `repository` is left out of all sources.
///
/// # Errors
/// Exit 2 where nothing says what is read.
pub fn input(
    context: &Context,
    args: &SourceArgs,
    units: &[String],
    repository: Option<&Path>,
) -> Result<SourcesInput, CliError> {
    let site = &context.loaded.config.site;
    // `--path` without `--site` means plain directories, whatever is configured.
    let plain = args.site.is_none() && !args.paths.is_empty();
    let mut paths = args.paths.clone();
    let mut excludes = args.excludes.clone();
    if !plain {
        paths.extend(site.paths.clone());
        excludes.extend(site.exclude.clone());
    }
    let configured = context.loaded.is_given("site.env_file").then(|| site.env_file.clone());
    let mut left_out: Vec<(PathBuf, &'static str)> = Vec::new();
    left_out.extend(repository.map(|path| (path.to_owned(), "the repository")));
    left_out.extend(context.cache_dir().map(|path| (path, "the cache of cabk")));
    left_out.extend(context.state_dir().ok().map(|path| (path, "the state directory of cabk")));
    let gcfg = (!plain).then(|| args.site.clone().unwrap_or_else(|| site.gcfg.clone()));
    let usage = |error: String| CliError::new(Kind::Usage, error);
    let afar = gcfg.as_deref().map(|path| Afar::parse(bytes(path))).transpose().map_err(usage)?;
    let afar = afar.flatten();
    // What runs here is not that node's server.
    let here = !plain && afar.is_none();
    Ok(SourcesInput {
        gcfg: afar.as_ref().map(|afar| afar.gcfg.clone()).or(gcfg),
        afar,
        root: None,
        paths,
        excludes,
        exclude_runtimes: args.exclude_runtimes,
        one_file_system: args.one_file_system,
        env_file: args.env_file.clone(),
        usual_env_file: configured,
        process_env: if here { environment(context, units) } else { Vec::new() },
        units: if plain { Vec::new() } else { units.to_vec() },
        cabk_config: context.loaded.file.clone().filter(|_| !plain),
        site_name: context.site_name().map(str::to_owned),
        left_out,
    })
}

/// Fetches the configuration of a site that another node has, for as long as the result lives.
///
/// # Errors
/// Exit 22 where it cannot be read there.
pub fn fetched(
    context: &Context,
    input: &mut SourcesInput,
    units: &[String],
) -> Result<Option<tempfile::TempDir>, CliError> {
    let Some(afar) = &input.afar else { return Ok(None) };
    let refused = |error: std::io::Error| {
        let message = format!("the site's configuration cannot be read: {error}");
        CliError::new(Kind::Refused, message)
    };
    let place = context.state_dir()?.join("nodes");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(refused)?;
    let nodes = Nodes::named(context, &[afar.node.to_string()])?;
    let Some(node) = nodes.reached(context).next() else { return Ok(None) };
    let dir = afar.fetch(&node, units, &place).map_err(refused)?;
    input.root = Some(dir.path().to_owned());
    Ok(Some(dir))
}

/// Finds out what is read.
///
/// # Errors
/// [`failed`].
pub fn wanted(input: &SourcesInput) -> Result<Wanted, CliError> {
    gather(input).map_err(|error| failed(&error))
}

/// How a user meets a [`SourcesError`]: wrong names are usage, what is missing of a site is a state
/// in which no snapshot can succeed.
#[must_use]
pub fn failed(error: &SourcesError) -> CliError {
    let kind = match error {
        SourcesError::CriticalMissing { .. } | SourcesError::Within { .. } => Kind::Refused,
        SourcesError::Follow { .. } | SourcesError::Machine(_) => Kind::Failed,
        _ => Kind::Usage,
    };
    let shown = CliError::from_error(kind, error);
    match error {
        SourcesError::Site(_) => shown.hint(
            "name the site's configuration with --site GCFG, or plain directories with --path",
        ),
        SourcesError::Nothing | SourcesError::NotThere(_) | SourcesError::Plan(_) => {
            shown.hint("see `cabk snapshot --help`")
        }
        _ => shown,
    }
}

/// Variables of the running server, where systemd knows its process and this process may look.
fn environment(context: &Context, units: &[String]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for unit in units {
        let properties = Systemd::new(unit, context.clock.clone()).and_then(|s| s.properties());
        let Some(pid) = properties.ok().and_then(|p| p.main_pid) else { continue };
        let path = PathBuf::from(format!("/proc/{pid}/environ"));
        let Ok(bytes) = read(&path) else { continue };
        let pairs = bytes.split(|&b| b == 0).filter_map(|pair| std::str::from_utf8(pair).ok());
        all.extend(pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        }));
    }
    all
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(ENVIRONMENT_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
