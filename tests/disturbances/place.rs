//! A site whose windows stop at two places: when the service is down, and when everything but the
//! last source is read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::skip;
use crate::gate::Gate;
use crate::kinds::{ALL, Acted, Kind, When};
use crate::site::Site;
use crate::world::{Done, Guarded, World, is_root, past_the_grain, sees_machine, until};

/// Makes the gate's file a changed one, so that it is read in the window, and waits.
const AFTER_STOP: &str = r#"echo more >>"$1/zz/gate"; : >"$1/svc/stopped"
until [ -e "$1/svc/go" ] || [ ! -d "$1/svc" ]; do sleep 0.01; done
rm -f "$1/svc/go" "$1/svc/stopped"
"#;

/// A mount that goes away with whatever is still in it.
struct Overlay(PathBuf);

impl Drop for Overlay {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.0.display());
        }
    }
}

/// The site. What is taken away last stands last.
pub(crate) struct Place {
    pub(crate) site: Site,
    _overlay: Option<Overlay>,
    _below: Option<tempfile::TempDir>,
}

/// Where one kind of disturbance takes place.
pub(crate) struct Spot<'a> {
    pub(crate) site: &'a Site,
    /// A directory in a source, with `file`, `other`, `linked`, `link` and `sub/inner`.
    pub(crate) dir: PathBuf,
    /// A directory outside of the sources, on the same file system; `linked` is a second name.
    pub(crate) outside: PathBuf,
}

impl Place {
    /// On the file system of temporary files.
    pub(crate) fn by_events() -> Option<Self> {
        Self::possible().then(|| Self { site: grown(World::new()), _overlay: None, _below: None })
    }

    /// On a file system that tells nothing of changes.
    pub(crate) fn by_scan() -> Option<Self> {
        if !Self::possible() {
            return None;
        }
        let below = tempfile::tempdir().unwrap();
        let at = |name: &str| below.path().join(name);
        for name in ["lower", "upper", "work", "on"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            at("lower").display(),
            at("upper").display(),
            at("work").display()
        );
        let mut command = Command::new("mount");
        command.args(["-t", "overlay", "-o", &options, "overlay"]).arg(at("on"));
        if !command.output().is_ok_and(|done| done.status.success()) {
            skip("an overlay cannot be mounted here");
            return None;
        }
        let overlay = Some(Overlay(at("on")));
        let site = grown(World::below(&at("on")));
        Some(Self { site, _overlay: overlay, _below: Some(below) })
    }

    fn possible() -> bool {
        let possible = is_root() && sees_machine();
        if !possible {
            skip("events of whole file systems take root on a whole machine");
        }
        possible
    }

    /// A window, with a disturbance in it. `None` where this machine cannot do that.
    pub(crate) fn window(&self, kind: Option<&Kind>) -> Option<(Done, Acted)> {
        let site = &self.site;
        let path = |name: &str| site.path(name).display().to_string();
        let (zz, extra) = (path("zz"), path("extra"));
        let args = ["--wait-quiet", "100ms", "--path", &extra, "--path", &zz];
        let mut command = site.command(&args);
        let file = |name: &str| File::create(site.path(name)).unwrap();
        command.stdout(file("svc/out")).stderr(file("svc/err"));
        let mut child = Guarded(command.spawn().unwrap());
        let said = || std::fs::read_to_string(site.path("svc/err")).unwrap();
        until(240, "the stop", || {
            assert!(child.0.try_wait().unwrap().is_none(), "it ended: {}", said());
            site.path("svc/stopped").exists()
        });
        let act = |when: When| match kind {
            Some(kind) if kind.when == when => kind.act(&self.spot(kind.name)).map(Some),
            _ => Some(None),
        };
        let stopped = act(When::Stopped);
        let gate = Gate::at(&site.path("zz/gate"));
        site.put("svc/go", "");
        let reading = gate.map(|gate| {
            let _halted = gate.halt(child.0.id());
            act(When::Reading)
        });
        let status = child.0.wait().unwrap();
        let read = |name: &str| std::fs::read(site.path(name)).unwrap();
        let output = Output { status, stdout: read("svc/out"), stderr: read("svc/err") };
        let acted = stopped?.into_iter().chain(reading??).next();
        Some((Done::of(&output), acted.unwrap_or_default()))
    }

    fn spot(&self, name: &str) -> Spot<'_> {
        let (inside, outside) = (format!("data/apps/{name}"), format!("outside/{name}"));
        Spot { site: &self.site, dir: self.site.path(&inside), outside: self.site.path(&outside) }
    }
}

/// A site with a spot for each kind.
fn grown(world: World) -> Site {
    let site = Site::of(world);
    for kind in ALL {
        let inside = format!("data/apps/{}", kind.name);
        for name in ["file", "other", "linked", "sub/inner"] {
            site.put(&format!("{inside}/{name}"), &format!("{} {name} ", kind.name).repeat(400));
        }
        let outside = format!("outside/{}", kind.name);
        site.put(&format!("{outside}/moved/in/file"), "moved in");
        link(&site.path(&format!("{inside}/linked")), &site.path(&format!("{outside}/linked")));
        std::os::unix::fs::symlink("file", site.path(&format!("{inside}/link"))).unwrap();
    }
    for name in ["zz/gate", "extra/file", "extra.other/file"] {
        site.put(name, name);
    }
    site.put("svc/after-stop", AFTER_STOP);
    past_the_grain();
    site
}

fn link(from: &Path, to: &Path) {
    std::fs::hard_link(from, to).unwrap();
}
