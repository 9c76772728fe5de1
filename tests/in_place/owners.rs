//! Owners go by name: the numbers are this machine's, and a name that nobody has here is refused.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::Command;

use crate::common::skip;
use crate::world::{Done, World, is_root};

/// In a mount namespace of its own, with other users and groups.
const SCRIPT: &str = r#"mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group || exit 99
shift 2
exec "$@""#;

const USER: &str = "cabk-toy-user";
const GROUP: &str = "cabk-toy-group";

/// A machine's users and groups: those of this one, and ours with these numbers.
struct Machine {
    passwd: PathBuf,
    group: PathBuf,
}

impl Machine {
    fn new(world: &World, name: &str, numbers: Option<(u32, u32)>) -> Self {
        let machine = Self {
            passwd: world.path(&format!("{name}-passwd")),
            group: world.path(&format!("{name}-group")),
        };
        let (mut passwd, mut group) = (read("/etc/passwd"), read("/etc/group"));
        if let Some((uid, gid)) = numbers {
            passwd.push_str(&format!("{USER}:x:{uid}:{gid}::/nonexistent:/bin/false\n"));
            group.push_str(&format!("{GROUP}:x:{gid}:\n"));
        }
        std::fs::write(&machine.passwd, passwd).unwrap();
        std::fs::write(&machine.group, group).unwrap();
        machine
    }

    fn run(&self, world: &World, args: &[&str]) -> Done {
        let mut command = Command::new("unshare");
        world.surround(&mut command);
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
        command.arg(&self.passwd).arg(&self.group).arg(env!("CARGO_BIN_EXE_cabk"));
        Done::of(&command.args(args).output().unwrap())
    }
}

fn read(path: &str) -> String {
    let mut text = std::fs::read_to_string(path).unwrap();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn can_be_another_machine(world: &World) -> bool {
    let mut command = Command::new("unshare");
    world.surround(&mut command);
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
    command.args(["/etc/passwd", "/etc/group", "true"]);
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn names_count_and_numbers_are_those_of_the_machine() {
    if !is_root() {
        return skip("other users and groups take root");
    }
    let world = World::in_memory();
    if !can_be_another_machine(&world) {
        return skip("no mount namespace can be made here");
    }
    let old = Machine::new(&world, "old", Some((741_001, 741_002)));
    let new = Machine::new(&world, "new", Some((752_001, 752_002)));
    let without = Machine::new(&world, "without", None);
    let theirs = world.put("theirs/file", "of the service");
    let plain = world.put("plain", "of root");
    let nobody = world.put("nobody", "a number that has no name");
    for path in [&theirs, &world.source().join("theirs")] {
        chown(path, Some(741_001), Some(741_002)).unwrap();
    }
    chown(&nobody, Some(763_001), Some(763_002)).unwrap();
    let source = world.source().display().to_string();
    let snapshot = ["--json", "snapshot", "--site-name", "toy", "--path", &source];
    old.run(&world, &snapshot).expect(0);
    let owner = |path: &PathBuf| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.uid(), meta.gid())
    };
    let change = || {
        std::fs::write(&theirs, "changed").unwrap();
        std::fs::remove_file(&plain).unwrap();
    };

    change();
    let restore = ["--json", "--site-name", "toy", "restore", "latest", "--in-place"];
    let refused = without.run(&world, &restore).expect(22);
    let text = refused.error()["error"].to_string();
    for line in [format!("groupadd --system {GROUP}"), format!("useradd --system {USER}")] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "changed", "nothing was touched");
    assert!(!plain.exists());
    assert_eq!(owner(&theirs), (741_001, 741_002));

    new.run(&world, &restore).expect(0);
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "of the service");
    assert_eq!(std::fs::read_to_string(&plain).unwrap(), "of root");
    assert_eq!(owner(&theirs), (752_001, 752_002));
    assert_eq!(owner(&world.source().join("theirs")), (752_001, 752_002));
    assert_eq!(owner(&plain), (0, 0));
    assert_eq!(owner(&nobody), (763_001, 763_002), "without a name the number stays");

    // By number, where that is wished for, names are not asked for.
    let numeric = [&restore[..], &["--numeric-ids"]].concat();
    without.run(&world, &numeric).expect(0);
    assert_eq!(owner(&theirs), (741_001, 741_002));
    // Beside, a missing name is no reason to refuse.
    let target = world.path("target").display().to_string();
    let beside = ["--json", "--site-name", "toy", "restore", "latest", "--target", &target];
    let done = without.run(&world, &beside).expect(0);
    let restored = world.path("target").join(theirs.strip_prefix("/").unwrap());
    assert_eq!(owner(&restored), (741_001, 741_002), "{}", done.said());
}
