//! POSIX ACLs as extended attributes hold them: a version, then entries of tag, permissions and the
//! number of a user or a group. The numbers are the machine's: they need names as owners do.

/// Version of the form.
const VERSION: u32 = 2;
/// Bytes of the version.
const HEAD: usize = 4;
/// Bytes of an entry: tag u16, permissions u16, number u32.
const ENTRY: usize = 8;
/// Tag of an entry of a named user.
const USER: u16 = 0x02;
/// Tag of an entry of a named group.
const GROUP: u16 = 0x08;

/// Whom an entry names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// A user's number.
    User(u32),
    /// A group's number.
    Group(u32),
}

/// Whether an extended attribute of this name is an ACL.
#[must_use]
pub fn is_acl(name: &[u8]) -> bool {
    matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// All users and groups that an ACL names; none where it is of another form.
pub fn named(value: &[u8]) -> impl Iterator<Item = Who> {
    let entries = value.get(HEAD..).filter(|_| value.starts_with(&VERSION.to_le_bytes()));
    entries.unwrap_or_default().chunks_exact(ENTRY).filter_map(who)
}

fn who(entry: &[u8]) -> Option<Who> {
    let (tag, number) = (entry.first_chunk::<2>()?, entry.last_chunk::<4>()?);
    let number = u32::from_le_bytes(*number);
    match u16::from_le_bytes(*tag) {
        USER => Some(Who::User(number)),
        GROUP => Some(Who::Group(number)),
        _ => None,
    }
}

/// The ACL with other numbers; `None` where it is of another form or all stay.
pub fn rewrite(value: &[u8], to: &dyn Fn(Who) -> u32) -> Option<Vec<u8>> {
    let entries = value.get(HEAD..).filter(|_| value.starts_with(&VERSION.to_le_bytes()))?;
    if entries.len() % ENTRY != 0 {
        return None;
    }
    let mut out = value.to_vec();
    for entry in out[HEAD..].chunks_exact_mut(ENTRY) {
        if let Some(who) = who(entry) {
            entry[ENTRY - 4..].copy_from_slice(&to(who).to_le_bytes());
        }
    }
    (out != value).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u32)]) -> Vec<u8> {
        let mut acl = VERSION.to_le_bytes().to_vec();
        for (tag, number) in entries {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&6u16.to_le_bytes());
            acl.extend_from_slice(&number.to_le_bytes());
        }
        acl
    }

    #[test]
    fn named_entries_get_other_numbers_and_no_others() {
        let nobody = u32::MAX;
        let before = acl(&[(1, nobody), (USER, 99), (4, nobody), (GROUP, 99), (16, nobody)]);
        let to = |who| match who {
            Who::User(n) => n + 1,
            Who::Group(n) => n + 2,
        };
        let after = acl(&[(1, nobody), (USER, 100), (4, nobody), (GROUP, 101), (16, nobody)]);
        assert_eq!(named(&before).collect::<Vec<_>>(), [Who::User(99), Who::Group(99)]);
        assert_eq!(rewrite(&before, &to), Some(after));
        assert_eq!(rewrite(&acl(&[(1, nobody), (4, nobody)]), &to), None);
        for wrong in [
            &b""[..],
            b"\x02\0\0",
            b"\x03\0\0\0\x02\0\x06\0\x63\0\0\0",
            &before[..before.len() - 1],
        ] {
            assert_eq!(rewrite(wrong, &to), None, "{wrong:?}");
        }
        assert_eq!(named(b"\x02\0\0\0\x02\0").count(), 0);
    }
}
