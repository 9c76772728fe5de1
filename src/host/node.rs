//! A node: this machine, or another one that the system's `ssh` reaches.
//!
//! On another node words are quoted for its shell one by one, and scripts go through standard
//! input: nothing that a site or a configuration says becomes part of a shell's text. Keys, known
//! hosts and everything else of a connection are `ssh`'s own matter. Nothing is installed there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::run::{Finished, KEPT_OUTPUT, RunError, Surroundings, run_with};

pub mod files;
pub mod scan;
mod ssh;
#[cfg(test)]
pub(crate) mod tests;

pub use ssh::{Ssh, socket_places};

/// Bytes that an address may have.
const ADDRESS_MAX: usize = 512;

/// `ssh` ends with this where it did not come to run the command.
const SSH_FAILED: i32 = 255;

/// Where a node is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeAddress {
    /// This machine: `local`.
    Local,
    /// Another one: `ssh://[USER@]HOST[:PORT]`.
    Ssh(SshAddress),
}

/// What `ssh` connects to. Made by parsing alone, so that none of it can be taken for an option.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SshAddress {
    user: Option<String>,
    /// A name, an alias of `ssh`'s configuration, or an address (IPv6 without brackets).
    host: String,
    port: Option<u16>,
}

/// A text that is no node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a node: {0:?} (write local or ssh://[USER@]HOST[:PORT], IPv6 in brackets)")]
pub struct NotANode(String);

impl FromStr for NodeAddress {
    type Err = NotANode;

    fn from_str(text: &str) -> Result<Self, NotANode> {
        let wrong = || NotANode(text.chars().take(ADDRESS_MAX).collect());
        if text == "local" {
            return Ok(Self::Local);
        }
        let rest = text.strip_prefix("ssh://").filter(|_| text.len() <= ADDRESS_MAX);
        rest.and_then(SshAddress::parse).map(Self::Ssh).ok_or_else(wrong)
    }
}

impl SshAddress {
    fn parse(rest: &str) -> Option<Self> {
        let (user, place) = match rest.split_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, rest),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']')?;
                let (number, zone) =
                    host.split_once('%').map_or((host, None), |(n, z)| (n, Some(z)));
                number.parse::<Ipv6Addr>().ok()?;
                if !zone.is_none_or(is_name) {
                    return None;
                }
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
                (host, port)
            }
            None => {
                let (host, port) =
                    place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
                if !is_name(host) {
                    return None;
                }
                (host, port)
            }
        };
        if !user.as_deref().is_none_or(|user| is_name(user.trim_end_matches('$'))) {
            return None;
        }
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|&port| port != 0)?)
            }
            Some(_) => return None,
        };
        Some(Self { user, host: host.to_owned(), port })
    }
}

/// Letters, digits and a few marks; no option.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(fits)
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Ssh(address) => write!(f, "ssh://{address}"),
        }
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl NodeAddress {
    /// What a person types to run a command there; the command itself on this machine.
    #[must_use]
    pub fn by_hand(&self, sudo: bool, command: &str) -> String {
        let Self::Ssh(to) = self else { return command.to_owned() };
        let sudo = if sudo { "sudo " } else { "" };
        let port = to.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = to.user.as_deref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("ssh {port}{user}{} {sudo}{command}", to.host)
    }
}

/// As whom something is run on another node. On this machine it is always this process's user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// The user that `ssh` logs in as.
    Own,
    /// With `sudo -n`, where the node was set up so.
    Root,
}

/// Whether a command may leave a shared connection behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// It opens one where there is none.
    Open,
    /// It takes one that is there, or connects for itself: nothing outlives it.
    Join,
}

/// A machine that runs words and scripts.
#[derive(Clone)]
pub struct Node {
    reach: Reach,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
enum Reach {
    Here,
    There { address: SshAddress, ssh: Arc<Ssh>, sudo: bool },
}

impl Node {
    /// This machine.
    #[must_use]
    pub fn local(clock: Arc<dyn Clock>) -> Self {
        Self { reach: Reach::Here, clock }
    }

    /// The machine at an address, reached by this `ssh`; with `sudo` what needs [`Rights::Root`]
    /// goes through `sudo -n` there.
    #[must_use]
    pub fn at(address: NodeAddress, ssh: &Arc<Ssh>, sudo: bool, clock: Arc<dyn Clock>) -> Self {
        let reach = match address {
            NodeAddress::Local => Reach::Here,
            NodeAddress::Ssh(address) => Reach::There { address, ssh: Arc::clone(ssh), sudo },
        };
        Self { reach, clock }
    }

    /// `local`, or the address.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.reach {
            Reach::Here => "local".to_owned(),
            Reach::There { address, .. } => format!("ssh://{address}"),
        }
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.reach, Reach::Here)
    }

    /// Time.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Runs a program with arguments, without a shell's reading of them, for at most `timeout`.
    ///
    /// # Errors
    /// [`RunError::Unreachable`] where the node cannot be reached, and the others as on this
    /// machine. On another node what was begun is not ended when its time is over.
    pub fn run(
        &self,
        rights: Rights,
        words: &[OsString],
        env: &[(&str, &OsStr)],
        sharing: Sharing,
        timeout: Duration,
    ) -> Result<Finished, RunError> {
        self.send(rights, words, env, &[], KEPT_OUTPUT, sharing, timeout)
    }

    /// Runs a script by `sh`, its arguments as `$1` and so on; of its output `keep` bytes are kept.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn script(
        &self,
        rights: Rights,
        text: &str,
        arguments: &[OsString],
        keep: usize,
        sharing: Sharing,
        timeout: Duration,
    ) -> Result<Finished, RunError> {
        let mut words: Vec<OsString> = vec!["sh".into(), "-s".into(), "--".into()];
        words.extend(arguments.iter().cloned());
        self.send(rights, &words, &[], text.as_bytes(), keep, sharing, timeout)
    }

    #[allow(clippy::too_many_arguments, reason = "the one place where all of it meets")]
    fn send(
        &self,
        rights: Rights,
        words: &[OsString],
        env: &[(&str, &OsStr)],
        input: &[u8],
        keep: usize,
        sharing: Sharing,
        timeout: Duration,
    ) -> Result<Finished, RunError> {
        let Reach::There { address, ssh, sudo } = &self.reach else {
            let around = Surroundings { env, input, keep, name: None, dir: None };
            return run_with(words, &around, timeout, &*self.clock);
        };
        if words.first().is_none_or(|program| program.is_empty()) {
            return Err(RunError::Empty);
        }
        let mut there: Vec<OsString> = Vec::new();
        if !env.is_empty() {
            there.push("env".into());
            let pair =
                |(key, value): &(&str, &OsStr)| [OsStr::new(key), value].join(OsStr::new("="));
            there.extend(env.iter().map(pair));
        }
        if *sudo && rights == Rights::Root {
            there.extend(["sudo".into(), "-n".into()]);
        }
        there.extend(words.iter().cloned());
        let mut all = ssh.words(address, sharing);
        all.push(shell_text(&there));
        let name = crate::base::path::printable(words.join(OsStr::new(" ")).as_bytes());
        let name = format!("{name} on ssh://{address}");
        let around = Surroundings { env: &[], input, keep, name: Some(&name), dir: None };
        let done = run_with(&all, &around, timeout, &*self.clock)?;
        if done.status.code() == Some(SSH_FAILED) {
            return Err(RunError::Unreachable { node: self.name(), said: done.said() });
        }
        Ok(done)
    }
}

/// Words as a shell's text that means just them.
fn shell_text(words: &[OsString]) -> OsString {
    let mut text = Vec::new();
    for word in words {
        if !text.is_empty() {
            text.push(b' ');
        }
        quote(word.as_bytes(), &mut text);
    }
    OsString::from_vec(text)
}

fn quote(word: &[u8], text: &mut Vec<u8>) {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(b);
    if !word.is_empty() && word.iter().all(plain) {
        return text.extend_from_slice(word);
    }
    text.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            byte => text.push(byte),
        }
    }
    text.push(b'\'');
}
