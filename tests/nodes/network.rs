//! Links between the machine on which cabk runs and its nodes: a network namespace for each, and
//! nothing of it in the one of the tests.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::world::Guarded;

/// The network of the machine on which cabk runs.
pub(crate) struct Machine(Guarded);

/// A link to a node.
pub(crate) struct Link {
    node: u32,
    number: usize,
}

/// A command in the network namespace of a process.
fn within(process: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &process.to_string(), "--net", "--"]).arg(program);
    command
}

fn run(process: u32, words: &str) -> Result<(), String> {
    let mut command = within(process, "ip");
    let done = command.args(words.split(' ')).stdin(Stdio::null()).output();
    let done = done.map_err(|_| "nsenter is not installed".to_owned())?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("no link can be made here: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

impl Machine {
    /// Or why it cannot be.
    pub(crate) fn new() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 100000"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let spawned = command.spawn().map_err(|_| "unshare is not installed".to_owned())?;
        let mut holder = Guarded(spawned);
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            return Err("network namespaces cannot be made here".into());
        }
        Ok(Self(holder))
    }

    /// A program in this network.
    pub(crate) fn within(&self, program: impl AsRef<OsStr>) -> Command {
        within(self.0.0.id(), program)
    }

    /// Links a node, whose process is in a network namespace of its own or about to be.
    pub(crate) fn link(&self, number: usize, node: u32) -> Result<Link, String> {
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        crate::world::until(20, "the node's network", || {
            std::fs::read_link(format!("/proc/{node}/ns/net")).is_ok_and(|net| net != own)
        });
        let here = self.0.0.id();
        run(here, &format!("link add n{number} type veth peer name eth0 netns {node}"))?;
        run(here, &format!("addr add 10.99.{number}.1/30 dev n{number}"))?;
        run(here, &format!("link set n{number} up"))?;
        run(node, &format!("addr add 10.99.{number}.2/30 dev eth0"))?;
        run(node, "link set eth0 up")?;
        run(node, "link set lo up")?;
        Ok(Link { node, number })
    }
}

impl Link {
    pub(crate) fn address(&self) -> String {
        format!("10.99.{}.2", self.number)
    }

    /// Sets the node's end `up` or `down`.
    pub(crate) fn set(&self, state: &str) {
        run(self.node, &format!("link set eth0 {state}")).unwrap();
    }
}
