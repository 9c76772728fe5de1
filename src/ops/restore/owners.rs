//! Numbers of owners in the snapshot, and the numbers that they get here.

use std::collections::{HashMap, HashSet};

use super::RestoreError;
use crate::format::manifest::Owners as Names;
use crate::host::users::{Owners, OwnersError};

/// How owners are translated.
pub(super) struct OwnerRules<'a> {
    pub(super) here: &'a dyn Owners,
    pub(super) numeric: bool,
    pub(super) map_user: &'a [(String, String)],
    pub(super) map_group: &'a [(String, String)],
}

/// Numbers of one sort (users or groups) that differ, and names that nobody has here.
#[derive(Default)]
struct Side {
    to: HashMap<u32, u32>,
    missing: HashMap<u32, String>,
}

/// The translation of all owners that the snapshot names.
pub(super) struct OwnerMap {
    users: Side,
    groups: Side,
}

type Ask<'a> = &'a dyn Fn(&str) -> Result<Option<u32>, OwnersError>;

impl Side {
    fn build(
        names: &[(u32, String)],
        maps: &[(String, String)],
        numeric: bool,
        what: &str,
        ask: Ask<'_>,
    ) -> Result<Self, RestoreError> {
        let asked =
            |name: &str| ask(name).map_err(|e| RestoreError::Refused(format!("{e}: {}", e.source)));
        let mut side = Self::default();
        for (number, name) in names {
            if numeric || maps.iter().any(|(old, _)| old == name) {
                continue;
            }
            match asked(name)? {
                Some(here) => _ = side.to.insert(*number, here),
                None => _ = side.missing.insert(*number, name.clone()),
            }
        }
        for (old, new) in maps {
            let here = match asked(new)? {
                Some(here) => here,
                None => new.parse().map_err(|_| {
                    RestoreError::Refused(format!("there is no {what} {new:?} on this machine"))
                })?,
            };
            let named = names.iter().filter(|(_, name)| name == old).map(|(number, _)| *number);
            let mut numbers: Vec<u32> = named.collect();
            if numbers.is_empty() {
                numbers.extend(old.parse::<u32>());
            }
            if numbers.is_empty() {
                let known = format!("the snapshot has no {what} {old:?}");
                return Err(RestoreError::Usage(known));
            }
            for number in numbers {
                side.to.insert(number, here);
                side.missing.remove(&number);
            }
        }
        Ok(side)
    }

    fn of(&self, number: u32) -> (u32, bool) {
        let to = self.to.get(&number).copied().unwrap_or(number);
        (to, self.missing.contains_key(&number))
    }
}

impl OwnerMap {
    /// Asks this machine for every name once.
    pub(super) fn new(names: &Names, rules: &OwnerRules<'_>) -> Result<Self, RestoreError> {
        let users = Side::build(&names.users, rules.map_user, rules.numeric, "user", &|n| {
            rules.here.uid_of(n)
        })?;
        let groups = Side::build(&names.groups, rules.map_group, rules.numeric, "group", &|n| {
            rules.here.gid_of(n)
        })?;
        Ok(Self { users, groups })
    }

    /// Owner and group here, and whether one of them goes by number because nobody here has the
    /// name.
    pub(super) fn of(&self, uid: u32, gid: u32) -> (u32, u32, bool) {
        let (uid, by_uid) = self.users.of(uid);
        let (gid, by_gid) = self.groups.of(gid);
        (uid, gid, by_uid || by_gid)
    }

    /// Refuses where one of the used numbers has a name that is missing here, with what would make
    /// it.
    pub(super) fn require(
        &self,
        uids: &HashSet<u32>,
        gids: &HashSet<u32>,
    ) -> Result<(), RestoreError> {
        let mut lines = Vec::new();
        for (command, side, used) in
            [("groupadd", &self.groups, gids), ("useradd", &self.users, uids)]
        {
            let missing = side.missing.iter().filter(|(number, _)| used.contains(number));
            let mut names: Vec<&String> = missing.map(|(_, name)| name).collect();
            names.sort();
            names.dedup();
            lines.extend(names.iter().map(|name| format!("  {command} --system {}", quoted(name))));
        }
        if lines.is_empty() {
            return Ok(());
        }
        Err(RestoreError::Refused(format!(
            "owners of the snapshot do not exist on this machine; create them:\n{}",
            lines.join("\n")
        )))
    }
}

/// A name for a shell: names come from a repository.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$' | '@');
    if !name.is_empty() && name.chars().all(|c| plain(c) && c != '$') {
        return name.to_owned();
    }
    format!("'{}'", name.escape_debug().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::users::MapOwners;

    fn names() -> Names {
        Names {
            users: vec![(0, "root".into()), (999, "connect".into()), (7, "gone".into())],
            groups: vec![(0, "root".into()), (998, "connect".into())],
        }
    }

    #[test]
    fn names_count_and_numbers_are_the_rest() {
        let here = MapOwners::default().user("root", 0).user("connect", 450).group("root", 0);
        let rules = OwnerRules { here: &here, numeric: false, map_user: &[], map_group: &[] };
        let map = OwnerMap::new(&names(), &rules).unwrap();
        assert_eq!(map.of(999, 0), (450, 0, false));
        assert_eq!(map.of(999, 998), (450, 998, true));
        assert_eq!(map.of(12_345, 0), (12_345, 0, false));
        let used = HashSet::from([7, 999]);
        let error = map.require(&used, &HashSet::from([998])).unwrap_err().to_string();
        assert!(error.contains("groupadd --system connect\n  useradd --system gone"), "{error}");
        assert!(map.require(&HashSet::from([0]), &HashSet::from([0])).is_ok());
        let numeric = OwnerRules { numeric: true, ..rules };
        let map = OwnerMap::new(&names(), &numeric).unwrap();
        assert_eq!(map.of(999, 998), (999, 998, false));
    }

    #[test]
    fn maps_take_names_and_numbers() {
        let here = MapOwners::default().user("web", 33).user("root", 0).user("connect", 450);
        let map_user = [("gone".into(), "web".into()), ("12345".into(), "5".into())];
        let rules = OwnerRules { here: &here, numeric: false, map_user: &map_user, map_group: &[] };
        let map = OwnerMap::new(&names(), &rules).unwrap();
        assert_eq!(map.of(7, 5), (33, 5, false));
        assert_eq!(map.of(12_345, 5).0, 5);
        for (old, new) in [("nobody-there", "web"), ("gone", "no-such")] {
            let map_user = [(old.to_owned(), new.to_owned())];
            let rules = OwnerRules { map_user: &map_user, ..rules };
            assert!(OwnerMap::new(&names(), &rules).is_err(), "{old} {new}");
        }
    }

    #[test]
    fn names_cannot_run_commands() {
        assert_eq!(quoted("a-b"), "a-b");
        assert_eq!(quoted("$(reboot)"), "'$(reboot)'");
        assert_eq!(quoted("a'b"), "'a\\''b'".replace("a\\''b", "a\\'\\''b"));
    }
}
