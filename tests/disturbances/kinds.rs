//! All kinds of disturbance and what each is to come to.

use crate::files;
use crate::place::Spot;
use crate::processes;
use crate::world::Guarded;

/// How changes come to light.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// The kernel tells of them.
    Events,
    /// All is looked at a second time.
    Scan,
}

/// At which place of the window it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// The service is down, and nothing was looked at yet: a process that comes then is there at
    /// both scans.
    Stopped,
    /// Everything but the last source is read.
    Reading,
}

/// What the contract makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A capture: exactly these checks do not hold.
    Breaks(&'static [&'static str]),
    /// A snapshot, with a warning.
    Warns,
    /// A snapshot, and nothing to tell.
    Harmless,
    /// A snapshot, because the kernel tells nothing of it: a limit that docs/window.md names.
    Untold,
}

/// What was done, and what is to be taken back after the window.
#[derive(Default)]
pub(crate) struct Acted {
    /// What has to be named by whoever notices it.
    pub(crate) named: Vec<String>,
    /// What lives until the window is over.
    #[allow(dead_code, reason = "it is only kept")]
    pub(crate) kept: Kept,
}

/// What lives on, until it is dropped.
#[derive(Default)]
#[allow(dead_code, reason = "it is only kept")]
pub(crate) enum Kept {
    #[default]
    Nothing,
    Process(Guarded),
    Database(rusqlite::Connection),
    Undo(Undo),
}

/// Takes something back when it is dropped.
pub(crate) struct Undo(Option<Box<dyn FnOnce()>>);

impl Undo {
    pub(crate) fn by(back: impl FnOnce() + 'static) -> Kept {
        Kept::Undo(Self(Some(Box::new(back))))
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(back) = self.0.take() {
            back();
        }
    }
}

/// Does it; `None` where this machine cannot.
pub(crate) type Act = fn(&Spot<'_>) -> Option<Acted>;

/// A kind of disturbance.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) when: When,
    act: Act,
    events: Verdict,
    scan: Verdict,
}

impl Kind {
    pub(crate) const fn verdict(&self, by: By) -> Verdict {
        match by {
            By::Events => self.events,
            By::Scan => self.scan,
        }
    }

    pub(crate) fn act(&self, spot: &Spot<'_>) -> Option<Acted> {
        (self.act)(spot)
    }
}

const TREE: Verdict = Verdict::Breaks(&["tree-unchanged"]);
const PROCESS: Verdict = Verdict::Breaks(&["no-process-in-tree"]);
const BOTH: Verdict = Verdict::Breaks(&["no-process-in-tree", "tree-unchanged"]);
const LOCK: Verdict = Verdict::Breaks(&["sqlite-settled"]);
const LOCK_AND_PROCESS: Verdict = Verdict::Breaks(&["no-process-in-tree", "sqlite-settled"]);
const SERVICE: Verdict =
    Verdict::Breaks(&["no-process-in-tree", "service-stopped", "tree-unchanged"]);

/// A change of the tree while it is read.
const fn change(name: &'static str, act: Act) -> Kind {
    Kind { name, when: When::Reading, act, events: TREE, scan: TREE }
}

/// A process that can write, there at both scans.
const fn writer(name: &'static str, act: Act) -> Kind {
    Kind { name, when: When::Stopped, act, events: PROCESS, scan: PROCESS }
}

/// A process that can only look, there at both scans.
const fn reader(name: &'static str, act: Act) -> Kind {
    Kind { name, when: When::Stopped, act, events: Verdict::Warns, scan: PROCESS }
}

/// What touches nothing that is kept.
const fn harmless(name: &'static str, act: Act) -> Kind {
    let verdict = Verdict::Harmless;
    Kind { name, when: When::Reading, act, events: verdict, scan: verdict }
}

const fn at(name: &'static str, when: When, act: Act, events: Verdict, scan: Verdict) -> Kind {
    Kind { name, when, act, events, scan }
}

/// Every one of them. The name is that of its directory, too.
pub(crate) const ALL: &[Kind] = &[
    change("append", files::append),
    change("write-in-place-touched-back", files::touched_back),
    change("write-by-mmap", files::mapped),
    change("truncate-to-the-same-size", files::same_size),
    change("punch-a-hole", files::hole),
    change("chmod", files::chmod),
    change("chmod-and-back", files::chmod_and_back),
    change("chown", files::chown),
    change("xattr", files::xattr),
    change("xattr-of-a-directory", files::xattr_of_directory),
    change("acl", files::acl),
    at("inode-flags", When::Reading, files::flags, Verdict::Untold, TREE),
    change("times-of-a-directory", files::directory_times),
    change("rename", files::rename),
    change("rename-and-back", files::rename_and_back),
    change("save-by-rename", files::save_by_rename),
    change("exchange", files::exchange),
    change("create", files::create),
    change("create-and-delete", files::create_and_delete),
    change("delete", files::delete),
    change("special-file", files::special),
    change("symlink-replaced", files::symlink_replaced),
    change("hard-link-inside", files::link_inside),
    change("hard-link-outside", files::link_outside),
    change("second-link-removed", files::link_removed),
    change("write-through-a-link-outside", files::write_through_link),
    change("write-through-a-bind-mount", files::write_through_bind),
    change("directory-moved-in", files::directory_in),
    change("directory-moved-out", files::directory_out),
    change("mount-inside", files::mount_inside),
    change("root-exchanged", files::root_exchanged),
    change("written-while-it-is-read", files::written_while_read),
    change("cron-job", processes::cron),
    writer("open-for-writing", processes::open_for_writing),
    writer("mapped-for-writing", processes::mapped_for_writing),
    writer("own-mount-namespace", processes::own_mount_namespace),
    writer("own-pid-namespace", processes::own_pid_namespace),
    at("opens-late-and-stays", When::Reading, processes::open_for_writing, PROCESS, PROCESS),
    at("writes-and-stays", When::Reading, processes::writes_and_stays, BOTH, BOTH),
    reader("open-for-reading", processes::open_for_reading),
    reader("only-its-cwd", processes::cwd),
    at("sqlite-reader", When::Stopped, processes::sqlite_reader, LOCK, LOCK_AND_PROCESS),
    at(
        "sqlite-writer",
        When::Stopped,
        processes::sqlite_writer,
        LOCK_AND_PROCESS,
        LOCK_AND_PROCESS,
    ),
    change("sqlite-commit", processes::sqlite_commit),
    at("service-started-by-hand", When::Reading, processes::service_started, SERVICE, SERVICE),
    harmless("reader-that-comes-and-goes", processes::comes_and_goes),
    harmless("change-outside", files::outside_only),
];
