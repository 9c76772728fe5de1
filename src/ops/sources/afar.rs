//! A site whose configuration is on another node: its files are fetched for a look, and what they
//! name of shared directories is looked for here.

use std::io;
use std::path::{Path, PathBuf};

use super::nodes::{Stage, named_there, of_unit};
use crate::base::path::{bytes, from_bytes, join};
use crate::host::node::files::{Which, fetch};
use crate::host::node::{Node, NodeAddress};
use crate::site::discover::DEFAULT_ENV_FILE;
use crate::site::settings::migration_path;

/// Where a configuration is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Afar {
    /// The node.
    pub node: NodeAddress,
    /// The absolute path there.
    pub gcfg: PathBuf,
}

impl Afar {
    /// `ssh://[USER@]HOST[:PORT]/PATH`; `None` where it is a path of this machine.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &[u8]) -> Result<Option<Self>, String> {
        let Some(rest) = text.strip_prefix(b"ssh://") else { return Ok(None) };
        let wrong = "write ssh://[USER@]HOST[:PORT]/PATH";
        let slash = rest.iter().position(|&b| b == b'/').ok_or(wrong)?;
        let (place, path) = rest.split_at(slash);
        let place = std::str::from_utf8(place).map_err(|_| wrong)?;
        let node: NodeAddress =
            format!("ssh://{place}").parse().map_err(|_| format!("not a node: {wrong}"))?;
        if path == b"/" {
            return Err(wrong.to_owned());
        }
        Ok(Some(Self { node, gcfg: from_bytes(path).to_path_buf() }))
    }

    /// Fetches the configuration and what it names into a directory of its own below `place`, which
    /// goes when the result is dropped.
    ///
    /// # Errors
    /// What cannot be read, in one sentence.
    pub fn fetch(
        &self,
        node: &Node,
        units: &[String],
        place: &Path,
    ) -> io::Result<tempfile::TempDir> {
        let dir = tempfile::Builder::new().prefix(".site-").tempdir_in(place)?;
        let gcfg = bytes(&self.gcfg);
        let mut paths = vec![gcfg.to_vec(), migration_path(gcfg), DEFAULT_ENV_FILE.into()];
        // A unit is looked for below these names.
        let dirs = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
        for unit in units {
            paths.extend(of_unit(node, unit)?);
            let each = dirs.iter().map(|dir| join(dir.as_bytes(), unit.as_bytes()));
            paths.extend(each);
        }
        paths.sort();
        paths.dedup();
        let mut stage = Stage::within(dir.path());
        stage.put(fetch(node, Which::All, &paths)?)?;
        if !stage.has(gcfg) {
            let path = crate::base::path::printable(gcfg);
            return Err(io::Error::other(format!("{path} is not there on {}", node.name())));
        }
        let more = named_there(&stage, &self.gcfg, units, "")?;
        stage.put(fetch(node, Which::Files, &more)?)?;
        stage.finish()?;
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_on_a_node_is_told_from_a_path() {
        assert_eq!(Afar::parse(b"/etc/x.gcfg"), Ok(None));
        assert_eq!(Afar::parse(b"ssh"), Ok(None));
        let afar = Afar::parse(b"ssh://root@connect-2:2222/etc/c/c.gcfg").unwrap().unwrap();
        assert_eq!(afar.node.to_string(), "ssh://root@connect-2:2222");
        assert_eq!(afar.gcfg, Path::new("/etc/c/c.gcfg"));
        let six = Afar::parse(b"ssh://[::1]:22/x").unwrap().unwrap();
        assert_eq!(six.gcfg, Path::new("/x"));
        for wrong in ["ssh://", "ssh://host", "ssh://host/", "ssh:///etc/x", "ssh://-o/x"] {
            assert!(Afar::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
