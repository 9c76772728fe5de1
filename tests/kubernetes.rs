//! The commands of `docs/kubernetes.md`, with a `kubectl` that keeps its cluster in files and acts
//! late, as a real one does.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

mod common;
#[path = "common/site.rs"]
mod site;
#[path = "common/world.rs"]
mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use world::{Done, World, until};

/// A cluster in files: `replicas`, `ready`, `pods/*`, `jobs/*`. Pods come and go a while after the
/// scaling. It knows what the page says, word by word, and nothing else.
const KUBECTL: &str = r#"#!/bin/sh
cluster=CLUSTER
[ -e "$cluster/down" ] && { echo 'The connection to the server was refused' >&2; exit 1; }
echo "$*" >>"$cluster/calls"
later() { (setsid sh -c "sleep 0.3; $1" </dev/null >/dev/null 2>&1 &); }
[ "$1 $2" = '-n connect' ] || exit 9
shift 2
case "$*" in
'get deployment/connect -o jsonpath={.spec.replicas}') cat "$cluster/replicas" ;;
'get deployment/connect -o jsonpath={.status.readyReplicas}') cat "$cluster/ready" ;;
'get pods -l app.kubernetes.io/name=rstudio-connect --field-selector status.phase!=Succeeded,status.phase!=Failed -o name')
    ls "$cluster/pods" | sed 's#^#pod/#' ;;
'get pods -l app.kubernetes.io/managed-by=launcher --field-selector status.phase!=Succeeded,status.phase!=Failed -o name')
    ls "$cluster/jobs" | sed 's#^#pod/#' ;;
'delete jobs -l app.kubernetes.io/managed-by=launcher --wait=false') later "rm -f '$cluster'/jobs/*" ;;
'scale deployment/connect --replicas=0')
    echo 0 >"$cluster/replicas"; : >"$cluster/ready"
    later "rm -f '$cluster'/pods/*; touch '$cluster/gone'" ;;
'scale deployment/connect --replicas='[1-9]*)
    n=${3#--replicas=}; echo "$n" >"$cluster/replicas"
    for one in $(seq "$n"); do touch "$cluster/pods/connect-$one"; done
    later "echo $n >'$cluster/ready'" ;;
*) echo "unknown: $*" >&2; exit 9 ;;
esac
"#;

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubernetes.md"))
        .unwrap()
}

/// The blocks of the page in one language, without their indentation.
fn blocks(language: &str) -> Vec<String> {
    let text = document();
    let mut found: Vec<String> = Vec::new();
    let mut inside: Option<String> = None;
    for line in text.lines() {
        match (&mut inside, line.trim()) {
            (None, fence) if fence == format!("```{language}") => inside = Some(String::new()),
            (Some(_), "```") => found.extend(inside.take()),
            (Some(block), _) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    found
}

/// A site in a cluster whose Connect has three replicas.
struct Cluster {
    world: World,
}

impl Cluster {
    fn new() -> Self {
        Self::with_stop(None)
    }

    /// With the page's configuration, or another stop command.
    fn with_stop(stop: Option<&str>) -> Self {
        let cluster = Self { world: World::new() };
        let at = |name: &str| cluster.world.path(name);
        for dir in ["cluster/pods", "cluster/jobs", "bin", "etc", "data/apps/1", "state"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        let kubectl = KUBECTL.replace("CLUSTER", at("cluster").to_str().unwrap());
        std::fs::write(at("bin/kubectl"), kubectl).unwrap();
        std::fs::set_permissions(at("bin/kubectl"), PermissionsExt::from_mode(0o755)).unwrap();
        for n in 1..=3 {
            cluster.put(&format!("pods/connect-{n}"), "");
        }
        cluster.put("replicas", "3");
        cluster.put("ready", "3");
        let shell = blocks("sh");
        std::fs::write(at("etc/connect-status"), &shell[0]).unwrap();
        let mut config = blocks("toml").remove(0);
        config = config.replace("/etc/cabk/", &format!("{}/", at("etc").display()));
        if let Some(stop) = stop {
            let line = config.lines().find(|line| line.starts_with("stop_command")).unwrap();
            let other = format!("stop_command = [\"sh\", \"-c\", '''{stop}''']");
            config = config.replace(line, &other);
        }
        let config = format!("[repository]\nmin_free = \"1 MiB\"\n{config}");
        std::fs::write(at("cabk.toml"), config).unwrap();
        std::fs::write(at("data/apps/1/app.R"), "library(shiny)\n").unwrap();
        let gcfg = format!("[Server]\nDataDir = {}\n", at("data").display());
        std::fs::write(at("etc/connect.gcfg"), gcfg).unwrap();
        std::fs::create_dir(at("data/db")).unwrap();
        let db = rusqlite::Connection::open(at("data/db/connect.db")).unwrap();
        db.execute_batch("create table t (n integer primary key)").unwrap();
        cluster
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.world.path("cluster").join(name), text).unwrap();
    }

    fn get(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.world.path("cluster").join(name));
        text.unwrap_or_default().trim().to_owned()
    }

    /// cabk with this cluster's `kubectl`.
    fn cabk(&self, args: &[&str]) -> Command {
        let mut command = self.world.cabk();
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.world.path("bin").display()));
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn snapshot(&self, more: &[&str]) -> Command {
        let gcfg = self.world.path("etc/connect.gcfg");
        let mut args = vec!["snapshot", "--json", "--site", gcfg.to_str().unwrap()];
        args.extend(["--allow-volatile-state", "--wait-quiet", "0"]);
        args.extend(more);
        self.cabk(&args)
    }

    fn run(&self, mut command: Command) -> Done {
        Done::of(&command.output().unwrap())
    }

    fn runs(&self) -> bool {
        self.get("replicas") == "3" && self.get("ready") == "3"
    }
}

#[test]
fn the_commands_of_the_page_take_a_snapshot() {
    let cluster = Cluster::new();
    let done = cluster.run(cluster.snapshot(&[])).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    assert_eq!(done.json["site"], "connect-prod");
    assert!(cluster.runs(), "the same number as before");
    let calls = cluster.get("calls");
    assert!(calls.contains("scale deployment/connect --replicas=3"), "{calls}");
    let stopped = done.evidence("service-stopped")[0];
    assert_eq!((&stopped["held"], &stopped["how"]), (&true.into(), &"observed".into()));
    assert!(cluster.world.path("cluster/gone").exists(), "pods were waited for");
    assert!(!cluster.world.has_intent());
}

#[test]
fn a_rendering_that_outlives_the_scaling_is_waited_for() {
    let cluster = Cluster::new();
    cluster.put("jobs/render-1", "");
    let mut command = cluster.snapshot(&["--precopy", "never"]);
    let mut child = command.spawn().unwrap();
    until(60, "the pods to go", || cluster.world.path("cluster/gone").exists());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    assert_eq!(cluster.get("replicas"), "0", "it waits, and has started nothing");
    // What it writes last is in the snapshot.
    std::fs::write(cluster.world.path("data/apps/1/rendered.html"), "<p>done</p>").unwrap();
    std::fs::remove_file(cluster.world.path("cluster/jobs/render-1")).unwrap();
    let done = Done::of(&child.wait_with_output().unwrap()).expect(0);
    let inside = cluster.world.look();
    let tree = inside.tree(done.id());
    let rendered = &tree[&world::bytes(&cluster.world.path("data/apps/1/rendered.html"))];
    assert_eq!(inside.bytes(rendered), b"<p>done</p>");
    assert!(cluster.runs());
}

#[test]
fn a_job_that_never_ends_gives_up_and_connect_runs() {
    let cluster = Cluster::new();
    cluster.put("jobs/endless", "");
    let config = std::fs::read_to_string(cluster.world.path("cabk.toml")).unwrap();
    let config = config.replace("stop_timeout = \"10m\"", "stop_timeout = \"3s\"");
    std::fs::write(cluster.world.path("cabk.toml"), config).unwrap();
    cluster.run(cluster.snapshot(&[])).expect(1);
    assert!(cluster.runs());
    assert!(!cluster.world.has_intent());
}

#[test]
fn the_other_stop_command_ends_the_jobs() {
    let cluster = Cluster::with_stop(Some(&blocks("sh")[1]));
    cluster.put("jobs/endless", "");
    cluster.run(cluster.snapshot(&[])).expect(0);
    assert!(cluster.runs());
    assert_eq!(std::fs::read_dir(cluster.world.path("cluster/jobs")).unwrap().count(), 0);
}

#[test]
fn the_next_pod_starts_what_an_evicted_one_had_stopped() {
    let cluster = Cluster::new();
    cluster.put("jobs/render-1", "");
    let mut child = cluster.snapshot(&["--precopy", "never"]).spawn().unwrap();
    until(60, "the pods to go", || cluster.world.path("cluster/gone").exists());
    // The pod goes with all its processes: nobody in it reaches the cluster any more.
    cluster.put("down", "");
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(cluster.world.has_intent());
    assert_eq!(cluster.get("replicas"), "0");
    std::fs::remove_file(cluster.world.path("cluster/jobs/render-1")).unwrap();
    std::fs::remove_file(cluster.world.path("cluster/down")).unwrap();
    let yaml = blocks("yaml").join("");
    let line = yaml.lines().find(|line| line.contains("command: [\"cabk\", \"window\"")).unwrap();
    let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    cluster.run(cluster.cabk(&words[1..])).expect(0);
    until(30, "Connect to run as before", || cluster.runs());
    assert!(!cluster.world.has_intent());
}

#[test]
fn what_somebody_else_has_scaled_down_is_left_so() {
    let cluster = Cluster::new();
    for (name, text) in [("replicas", "0"), ("ready", "")] {
        cluster.put(name, text);
    }
    for n in 1..=3 {
        std::fs::remove_file(cluster.world.path(&format!("cluster/pods/connect-{n}"))).unwrap();
    }
    // Whoever finds nothing running takes no snapshot by accident.
    cluster.run(cluster.snapshot(&[])).expect(22);
    let done = cluster.run(cluster.snapshot(&["--already-stopped"])).expect(0);
    assert_eq!(done.evidence("service-stopped")[0]["how"], "observed");
    assert_eq!(cluster.get("replicas"), "0");
    assert!(!cluster.get("calls").contains("scale"), "{}", cluster.get("calls"));
}

#[test]
fn nothing_is_stopped_where_the_state_would_go_with_the_pod() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        return common::skip("there is no /dev/shm");
    }
    let cluster = Cluster::new();
    let state = tempfile::tempdir_in(shm).unwrap();
    let gcfg = cluster.world.path("etc/connect.gcfg");
    let mut command = cluster.cabk(&["snapshot", "--json", "--site", gcfg.to_str().unwrap()]);
    command.env("CABK_STATE_DIR", state.path());
    let done = cluster.run(command).expect(22);
    assert!(done.said().contains("would not survive a reboot"), "{}", done.said());
    assert!(!cluster.get("calls").contains("scale"));
}
