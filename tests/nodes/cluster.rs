//! A cluster on one machine: a site whose data all nodes share, and for each node an `sshd` in a pid,
//! mount and network namespace of its own. cabk runs in such ones too, and reaches the nodes by links
//! that can be cut.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::network::{Link, Machine};
use crate::world::{Done, Guarded, SITE, World, is_root, until};

/// A unit's state in files of the node's directory.
const SYSTEMCTL: &str = r#"#!/bin/sh
node=NODE; data=DATA; group=GROUP
for unit; do :; done
for word; do case $word in show|stop|start|reset-failed|is-active) verb=$word; break;; esac; done
case $unit in cabk-guard-*)
  timer=$node/${unit%.*}.timer
  case $verb in
    is-active) [ -e "$timer" ]; exit;;
    stop) [ -e "$timer" ] && kill -TERM "-$(cat "$timer")" 2>/dev/null; rm -f "$timer";;
  esac
  exit 0;;
esac
if [ "$unit" != toy.service ]; then
  [ "$verb" = show ] && printf 'LoadState=not-found\nActiveState=inactive\nSubState=dead\n' && exit 0
  echo "Unit $unit not loaded." >&2; exit 5
fi
while [ -e "$node/hold-$verb" ]; do touch "$node/held-$verb"; sleep 0.02; done
case $verb in
  show)
    main=0
    if [ -e "$node/pid" ]; then
      active=active sub=running path=/${group##*/} main=$(cat "$node/pid")
    else active=inactive sub=dead path=; fi
    printf 'LoadState=loaded\nActiveState=%s\nSubState=%s\nInvocationID=%s\nControlGroup=%s\n' \
      $active $sub "$(cat "$node/run")" "$path"
    printf 'MainPID=%s\nActiveEnterTimestampMonotonic=7\nConditionResult=yes\n' "$main";;
  stop)
    echo stop >>"$node/calls"
    [ -e "$node/hang" ] && exec sleep 600
    [ -e "$node/pid" ] && kill "$(cat "$node/pid")"
    while [ -e "$node/pid" ]; do sleep 0.01; done
    [ -e "$node/after-stop" ] && touch "$node/hold-show"; :;;
  start)
    [ -e "$node/pid" ] && exit 0
    [ -e /run/cabk/hold-toy.service ] && exit 0
    echo start >>"$node/calls"
    date +%s%N >"$node/run"
    setsid sh "$node/toy" "$node" "$data" "$group" </dev/null >/dev/null 2>&1 &
    while [ ! -e "$node/pid" ]; do sleep 0.01; done;;
esac
"#;

/// A timer of a node: a process that sleeps, and then does what it is for.
const SYSTEMD_RUN: &str = r#"#!/bin/sh
node=NODE
while :; do
  case $1 in
    --unit=*) unit=${1#--unit=};;
    --on-active=*) seconds=${1#--on-active=};;
    -*) ;;
    *) break;;
  esac
  shift
done
while [ -e "$node/hold-timer" ]; do touch "$node/held-timer"; sleep 0.02; done
echo "timer $seconds" >>"$node/calls.timer"
setsid sh -c 'sleep "$1"; rm -f "$2"; shift 2; exec "$@"' sh "$seconds" "$node/$unit.timer" "$@" \
  </dev/null >/dev/null 2>&1 &
echo $! >"$node/$unit.timer"
"#;

/// Writes on in the data directory until it is told to end.
const TOY: &str = r#"echo $$ >"$3/cgroup.procs"
cd /
exec 3>>"$2/log"
trap 'exec 3>&-; rm -f "$1/pid"; exit 0' TERM
echo $$ >"$1/pid.new" && mv "$1/pid.new" "$1/pid"
while [ -e "$1/toy" ]; do echo tick >&3; sleep 0.05 3>&-; done
"#;

/// With a `SHLVL` at which bash leaves root's own start-up file alone.
const SSHD: &str = "\
HostKey TOP/host_key
AuthorizedKeysFile TOP/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
SetEnv PATH=NODE/bin:/usr/bin:/bin SHLVL=5
";

const SSH: &str = "\
Host *
  IdentityFile TOP/key
  IdentitiesOnly yes
  UserKnownHostsFile TOP/known_hosts
  StrictHostKeyChecking yes
";

/// What a node begins with: what it keeps of itself is its own, and a drop-in heeds holds.
const BEGIN: &str = r#"
mount -t tmpfs none /run && mkdir /run/sshd || exit 1
[ -d /etc/systemd/system ] && mount --bind "$1/units" /etc/systemd/system
exec "$2" -D -e -f "$1/sshd_config"
"#;

struct NodeBox {
    dir: PathBuf,
    link: Link,
    group: PathBuf,
    sshd: Option<Guarded>,
}

/// The nodes and what they share.
pub(crate) struct Cluster {
    pub(crate) world: World,
    nodes: Vec<NodeBox>,
    ssh: PathBuf,
    machine: Machine,
}

/// A program, or why it is not there.
fn program(name: &str) -> Result<PathBuf, String> {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|dir| Path::new(dir).join(name));
    let found = places.into_iter().find(|path| path.exists());
    found.ok_or_else(|| format!("{name} is not installed"))
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// The options of `unshare` for namespaces of one's own; all in them ends with it.
const APART: [&str; 5] = ["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"];

fn apart(unshare: &Path) -> Command {
    let mut command = Command::new(unshare);
    command.args(APART);
    command
}

impl Cluster {
    /// So many nodes, or why there are none.
    pub(crate) fn new(count: usize) -> Result<Self, String> {
        if !is_root() {
            return Err("namespaces and control groups are for root to make".into());
        }
        let (sshd, ssh) = (program("sshd")?, program("ssh")?);
        let (keygen, unshare) = (program("ssh-keygen")?, program("unshare")?);
        if !quiet(apart(&unshare).arg("true")).status().is_ok_and(|done| done.success()) {
            return Err("namespaces cannot be made here".into());
        }
        program("nsenter")?;
        let machine = Machine::new()?;
        let mut cluster = Self { world: World::new(), nodes: Vec::new(), ssh, machine };
        cluster.configure("");
        cluster.site();
        for name in ["key", "host_key"] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(cluster.world.path(name));
            assert!(quiet(&mut command).status().unwrap().success());
        }
        cluster.write("ssh_config", SSH);
        let wrapper = format!(
            "#!/bin/sh\nexec {} -F {} \"$@\"\n",
            cluster.ssh.display(),
            cluster.world.path("ssh_config").display()
        );
        cluster.program("bin/ssh", &wrapper);
        for number in 0..count {
            let node = cluster.node(number, &sshd, &unshare)?;
            cluster.nodes.push(node);
        }
        let key = std::fs::read_to_string(cluster.world.path("host_key.pub")).unwrap();
        let known = cluster.nodes.iter().map(|node| format!("{} {key}", node.link.address()));
        cluster.write("known_hosts", &known.collect::<String>());
        for number in 0..count {
            until(20, "an sshd", || cluster.try_by_hand(number, "true").is_some());
            cluster.by_hand(number, "systemctl start toy.service");
            cluster.forget_calls(number);
        }
        Ok(cluster)
    }

    /// Data that all nodes share, and a configuration of their own.
    fn site(&self) {
        for (name, text) in
            [("data/apps/1/app.R", "library(shiny)\n"), ("data/db/secret.key", "01")]
        {
            let path = self.world.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let db = rusqlite::Connection::open(self.world.path("data/db/connect.db")).unwrap();
        db.execute_batch("create table t (n integer primary key)").unwrap();
        let data = self.world.path("data");
        let text = format!("[Server]\nAddress = http://toy\nDataDir = {}\n", data.display());
        self.write("connect.gcfg", &text);
    }

    fn node(&self, number: usize, sshd: &Path, unshare: &Path) -> Result<NodeBox, String> {
        let dir = self.world.path(&format!("node{number}"));
        let group = group(number).ok_or("no control group can be made here")?;
        let fill = |text: &str| {
            text.replace("TOP", &self.world.top().display().to_string())
                .replace("NODE", &dir.display().to_string())
                .replace("DATA", &self.world.path("data").display().to_string())
                .replace("GROUP", &group.display().to_string())
        };
        self.program(&format!("node{number}/bin/systemctl"), &fill(SYSTEMCTL));
        self.program(&format!("node{number}/bin/systemd-run"), &fill(SYSTEMD_RUN));
        self.write(&format!("node{number}/toy"), TOY);
        self.write(&format!("node{number}/run"), "1");
        self.write(&format!("node{number}/sshd_config"), &fill(SSHD));
        self.write(&format!("node{number}/units/toy.service.d/50-cabk-hold.conf"), "[Unit]\n");
        let mut command = apart(unshare);
        command.args(["--net", "sh", "-c", BEGIN, "sh"]).arg(&dir).arg(sshd);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(dir.join("sshd.log")).unwrap());
        let sshd = Guarded(command.spawn().unwrap());
        let link = self.machine.link(number, sshd.0.id())?;
        Ok(NodeBox { dir, link, group, sshd: Some(sshd) })
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.world.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace("TOP", &self.world.top().display().to_string())).unwrap();
    }

    /// Puts a program into the directory of this name.
    pub(crate) fn program(&self, name: &str, text: &str) {
        self.write(name, text);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.world.path(name), mode).unwrap();
    }

    /// Writes cabk's configuration: what lies outside of its pid namespace is asserted.
    pub(crate) fn configure(&self, more: &str) {
        let assert = "[evidence]\nassert = [\"no-process-in-tree\", \"sqlite-settled\"]\n";
        let text = format!("[repository]\nmin_free = \"1 MiB\"\n{assert}{more}");
        std::fs::write(self.world.path("cabk.toml"), text).unwrap();
    }

    pub(crate) fn address(&self, number: usize) -> String {
        format!("ssh://root@{}", self.nodes[number].link.address())
    }

    /// cabk in namespaces of its own.
    pub(crate) fn cabk(&self, args: &[&str]) -> Command {
        let mut command = self.machine.within("unshare");
        command.args(APART);
        self.world.surround(&mut command);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.world.path("bin").display()));
        command.arg(env!("CARGO_BIN_EXE_cabk")).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A snapshot with all nodes.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let gcfg = self.world.path("connect.gcfg");
        let mut args = vec!["snapshot", "--json", "--site-name", SITE, "--allow-volatile-state"];
        args.extend(["--site", gcfg.to_str().unwrap(), "--service", "toy.service"]);
        args.extend(["--wait-quiet", "300ms"]);
        let nodes: Vec<String> = (0..self.nodes.len()).map(|number| self.address(number)).collect();
        for node in &nodes {
            args.extend(["--node", node]);
        }
        args.extend(more);
        self.cabk(&args)
    }

    pub(crate) fn snapshot(&self, more: &[&str]) -> Done {
        Done::of(&self.command(more).output().unwrap())
    }

    fn try_by_hand(&self, number: usize, command: &str) -> Option<String> {
        let mut ssh = self.machine.within(&self.ssh);
        ssh.arg("-F").arg(self.world.path("ssh_config")).args(["-o", "BatchMode=yes"]);
        ssh.args([&format!("root@{}", self.nodes[number].link.address()), command]);
        let done = ssh.stdin(Stdio::null()).output().unwrap();
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// Runs something on a node, as a person would.
    pub(crate) fn by_hand(&self, number: usize, command: &str) -> String {
        let said = self.try_by_hand(number, command);
        said.unwrap_or_else(|| {
            let log = std::fs::read_to_string(self.nodes[number].dir.join("sshd.log"));
            panic!("{command} failed: {}", log.unwrap_or_default())
        })
    }

    pub(crate) fn put(&self, number: usize, name: &str) {
        std::fs::write(self.nodes[number].dir.join(name), "").unwrap();
    }

    pub(crate) fn has(&self, number: usize, name: &str) -> bool {
        self.nodes[number].dir.join(name).exists()
    }

    /// Takes something away that may not be there.
    pub(crate) fn remove(&self, number: usize, name: &str) {
        let _ = std::fs::remove_file(self.nodes[number].dir.join(name));
    }

    /// A node's end of its link goes down: to cabk's machine it is silent from then on.
    pub(crate) fn cut(&self, number: usize) {
        self.nodes[number].link.set("down");
    }

    pub(crate) fn mend(&self, number: usize) {
        self.nodes[number].link.set("up");
    }

    pub(crate) fn runs(&self, number: usize) -> bool {
        self.nodes[number].dir.join("pid").exists()
    }

    /// The service's process, as its node numbers it.
    pub(crate) fn pid(&self, number: usize) -> String {
        std::fs::read_to_string(self.nodes[number].dir.join("run")).unwrap()
    }

    /// What the unit was asked for.
    pub(crate) fn calls(&self, number: usize) -> Vec<String> {
        let text = std::fs::read_to_string(self.nodes[number].dir.join("calls"));
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// How often a node was to start its unit by itself, and timers that wait for it.
    pub(crate) fn timers(&self, number: usize) -> (usize, usize) {
        let dir = &self.nodes[number].dir;
        let asked = std::fs::read_to_string(dir.join("calls.timer")).unwrap_or_default();
        let waits = |name: std::ffi::OsString| name.as_encoded_bytes().ends_with(b".timer");
        let waiting = std::fs::read_dir(dir).unwrap().filter(|one| {
            let name = one.as_ref().unwrap().file_name();
            name != "calls.timer" && waits(name)
        });
        (asked.lines().count(), waiting.count())
    }

    pub(crate) fn forget_calls(&self, number: usize) {
        // It may never have been called.
        let _ = std::fs::remove_file(self.nodes[number].dir.join("calls"));
    }

    /// Ends a node at once, with all that runs on it.
    pub(crate) fn end(&mut self, number: usize) {
        self.nodes[number].sshd = None;
    }
}

/// A control group that only this test's node uses.
fn group(number: usize) -> Option<PathBuf> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let base = PathBuf::from("/sys/fs/cgroup");
    let bases = [base.join("unified"), base.clone(), base.join("systemd")];
    let base = bases.into_iter().find(|base| base.join("cgroup.procs").exists())?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = base.join(format!("cabk-test-{}-{count}-{number}", std::process::id()));
    std::fs::create_dir(&dir).ok()?;
    Some(dir)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.sshd = None;
            // A process in it may take a moment to end.
            for _ in 0..200 {
                if std::fs::remove_dir(&node.group).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}
