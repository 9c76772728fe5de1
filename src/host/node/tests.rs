use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::host::clock::SystemClock;
use crate::host::systemd::Systemd;

/// An `ssh` that notes its options and has the command read by a shell, as the other end would.
const SHIM: &str = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$*" >>"$dir/calls"
while [ "$1" != -- ]; do shift; done
shift 2
[ -e "$dir/down" ] && { echo 'ssh: connect to host x port 22: Connection refused' >&2; exit 255; }
PATH=$dir/there:$PATH exec sh -c "$*"
"#;

/// A node behind that.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
    pub(crate) node: Node,
}

impl Bed {
    pub(crate) fn new(sudo: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bed = Self { node: Node::local(Arc::new(SystemClock)), dir };
        bed.program("ssh", SHIM);
        let ssh = Ssh::new(Duration::from_secs(3)).by(&bed.dir.path().join("ssh"));
        let address = "ssh://me@far:2222".parse().unwrap();
        let node = Node::at(address, &Arc::new(ssh), sudo, Arc::new(SystemClock));
        Self { node, ..bed }
    }

    pub(crate) fn program(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Another test's fork may hold the script open for writing for a moment.
        let busy = std::io::ErrorKind::ExecutableFileBusy;
        while std::process::Command::new(&path)
            .args(["--", "x", "true"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .is_err_and(|e| e.kind() == busy)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = std::fs::remove_file(self.dir.path().join("calls"));
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn run(&self, words: &[&str]) -> Result<Finished, RunError> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        self.node.run(Rights::Root, &words, &[], Sharing::Open, Duration::from_secs(20))
    }
}

#[test]
fn addresses_are_read_strictly_and_shown_as_written() {
    let good = [
        "local",
        "ssh://connect-2",
        "ssh://root@connect-2.example.org",
        "ssh://root@10.0.0.2:2222",
        "ssh://[2001:db8::7]",
        "ssh://me@[fe80::1%eth0]:22",
        "ssh://svc_backup@an.alias_of-mine",
    ];
    for text in good {
        let address: NodeAddress = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
    }
    let bad = [
        "",
        "Local",
        "connect-2",
        "ssh://",
        "ssh://@host",
        "ssh://a@",
        "ssh://-oProxyCommand=x",
        "ssh://a@-l",
        "ssh://-a@host",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:+22",
        "ssh://host:",
        "ssh://host:22:22",
        "ssh://host/path",
        "ssh://ho st",
        "ssh://host\n",
        "ssh://a b@host",
        "ssh://a@b@host",
        "ssh://h\u{f6}st",
        "ssh://$(reboot)",
        "ssh://[host]",
        "ssh://[::1",
        "ssh://[::1]22",
        "ssh://[::1%]",
        "ssh://::1",
        "sftp://host",
    ];
    for text in bad {
        assert!(text.parse::<NodeAddress>().is_err(), "{text:?}");
    }
    assert!(format!("ssh://{}", "a".repeat(600)).parse::<NodeAddress>().is_err());
    let by_hand = |text: &str| text.parse::<NodeAddress>().unwrap().by_hand(true, "run it");
    assert_eq!(by_hand("ssh://me@[::1]:22"), "ssh -p 22 me@::1 sudo run it");
    assert_eq!(by_hand("local"), "run it");
}

#[test]
fn words_arrive_as_they_are() {
    let bed = Bed::new(false);
    let hostile = [
        "",
        "a b",
        "$(touch x)",
        "`id`",
        "it's",
        "'",
        "a\nb",
        "*",
        "~",
        "\\",
        ";reboot",
        "-n",
        "\u{e9}",
    ];
    let mut words = vec!["printf", "%s\\n<"];
    words.extend(hostile);
    let done = bed.run(&words).unwrap();
    let expected: String = hostile.iter().map(|word| format!("{word}\n<")).collect();
    assert_eq!(String::from_utf8_lossy(&done.stdout.kept), expected);
    let bytes = OsString::from_vec(b"\xff\xfe'x".to_vec());
    let words = ["printf".into(), "%s".into(), bytes.clone()];
    let done =
        bed.node.run(Rights::Own, &words, &[], Sharing::Join, Duration::from_secs(20)).unwrap();
    assert_eq!(done.stdout.kept, bytes.as_bytes());
    let arguments: Vec<OsString> = hostile.iter().map(OsString::from).collect();
    let script = "for one; do printf '%s\\n<' \"$one\"; done\n";
    let run = |node: &Node| {
        node.script(Rights::Own, script, &arguments, 1000, Sharing::Open, Duration::from_secs(20))
            .unwrap()
    };
    assert_eq!(String::from_utf8_lossy(&run(&bed.node).stdout.kept), expected);
    let here = Node::local(Arc::new(SystemClock));
    assert_eq!(String::from_utf8_lossy(&run(&here).stdout.kept), expected);
    let calls = bed.read("calls");
    for part in ["BatchMode=yes", "ConnectTimeout=3", "-l me -p 2222 -- far "] {
        assert!(calls.contains(part), "{part}: {calls}");
    }
}

#[test]
fn what_the_other_end_says_is_told_apart_from_what_ssh_says() {
    let bed = Bed::new(false);
    assert_eq!(bed.run(&["sh", "-c", "exit 7"]).unwrap().status.code(), Some(7));
    bed.program("down", "");
    match bed.run(&["true"]) {
        Err(RunError::Unreachable { node, said }) => {
            assert_eq!(node, "ssh://me@far:2222");
            assert!(said.contains("Connection refused"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(bed.run(&[""]), Err(RunError::Empty)));
}

#[test]
fn only_what_needs_rights_goes_through_sudo() {
    let bed = Bed::new(true);
    bed.program("there/sudo", "#!/bin/sh\n[ \"$1\" = -n ] && shift && SUDO=yes exec env \"$@\"\n");
    let words: Vec<OsString> = vec!["sh".into(), "-c".into(), "echo \"$SUDO$A\"".into()];
    let env = [("A", OsStr::new("; b'"))];
    let said = |rights| {
        let time = Duration::from_secs(20);
        bed.node.run(rights, &words, &env, Sharing::Join, time).unwrap().stdout.text()
    };
    assert_eq!(said(Rights::Root), "yes; b'");
    assert_eq!(said(Rights::Own), "; b'");
}

#[test]
fn a_unit_of_another_node_is_asked_stopped_and_its_group_read() {
    let bed = Bed::new(false);
    let systemctl = r#"#!/bin/sh
echo "$*" >>"$(dirname "$0")/units"
printf 'LoadState=loaded\nActiveState=inactive\nSubState=dead\nControlGroup=/a b/x\\x2d.service\n'
"#;
    bed.program("there/systemctl", systemctl);
    let mut unit = Systemd::on(bed.node.clone(), "a\\x2db@c.service").unwrap();
    let root = bed.dir.path().join("cgroup");
    let group = root.join("unified/a b/x\\x2d.service/below");
    std::fs::create_dir_all(&group).unwrap();
    unit.cgroup_root = root.clone();
    use crate::host::service::Service;
    assert_eq!(unit.node(), "ssh://me@far:2222");
    assert_eq!(unit.status().unwrap().detail, "inactive/dead");
    assert_eq!(unit.cgroup_processes().unwrap(), None, "no hierarchy is there");
    std::fs::write(root.join("unified/cgroup.procs"), "1\n").unwrap();
    std::fs::write(group.join("cgroup.procs"), "41\n7\n").unwrap();
    assert_eq!(unit.cgroup_processes().unwrap(), Some(vec![7, 41]));
    unit.stop(Duration::from_secs(20)).unwrap();
    let calls = bed.read("there/units");
    assert!(calls.ends_with("--no-ask-password stop -- a\\x2db@c.service\n"), "{calls}");
    bed.program("down", "");
    let error = unit.status().unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("cannot be reached"), "{source}");
    assert!(Systemd::on(bed.node.clone(), "a;b").is_err());
}

#[test]
fn a_shared_connection_has_a_private_place_and_is_ended() {
    let bed = Bed::new(false);
    let place = tempfile::tempdir_in("/tmp").unwrap();
    let long = place.path().join("x".repeat(100));
    let odd = place.path().join("100% odd");
    let good = place.path().join("good");
    for dir in [&long, &odd, &good] {
        std::fs::create_dir(dir).unwrap();
    }
    let left = good.join("cabk-ssh.1.99999999999.0");
    std::fs::create_dir(&left).unwrap();
    drop(std::os::unix::net::UnixListener::bind(left.join("0")).unwrap());
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
    let young = place.path().join("good/cabk-ssh.1.99999999999.1");
    std::fs::create_dir(&young).unwrap();
    let ssh = Ssh::new(Duration::from_secs(3)).by(&bed.dir.path().join("ssh"));
    let ssh = Arc::new(ssh.sharing(&[long, odd, good.clone()]));
    let dirs = || -> Vec<_> { std::fs::read_dir(&good).unwrap().flatten().collect() };
    assert!(young.exists(), "it may be somebody's in another pid namespace");
    std::fs::remove_dir(&young).unwrap();
    let dir = match &dirs()[..] {
        [one] => one.path(),
        other => panic!("{other:?}"),
    };
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let clock = Arc::new(SystemClock);
    let node = Node::at("ssh://far".parse().unwrap(), &ssh, false, clock);
    let run = |sharing| {
        let words = ["true".into()];
        node.run(Rights::Own, &words, &[], sharing, Duration::from_secs(20)).unwrap();
    };
    run(Sharing::Open);
    run(Sharing::Join);
    let calls = bed.read("calls");
    let lines: Vec<&str> = calls.lines().collect();
    let path = format!("ControlPath={}/0", dir.display());
    assert!(lines[0].contains(&path) && lines[0].contains("ControlMaster=auto"), "{calls}");
    assert!(lines[1].contains(&path) && lines[1].contains("ControlMaster=no"), "{calls}");
    std::fs::write(dir.join("0"), "").unwrap();
    let socket = dir.join("0");
    drop(node);
    std::thread::scope(|scope| {
        scope.spawn(|| drop(ssh));
        while !bed.read("calls").contains("-O exit -- far") {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::fs::remove_file(&socket).unwrap();
    });
    assert!(dirs().is_empty());
}
