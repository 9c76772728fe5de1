//! An exported key on paper: short numbered lines, each with check digits of its own, so that a
//! typing error is told by its line.

use crate::base::id::to_hex;

/// Groups of eight digits on a line.
const GROUPS_PER_LINE: usize = 3;
/// What an exported key begins with.
const PREFIX: &str = "cabk1";
/// Lines of a text that are looked at.
const LINES_MAX: usize = 1_000;

/// Why a text is no exported key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaperError {
    /// No line of it is one of a key.
    #[error("there is no exported key in the text")]
    None,
    /// A line's check digits are not those of the line.
    #[error("line {0} of the key has a typing error")]
    Line(usize),
    /// Lines are missing, or not in order.
    #[error("line {0} of the key is missing")]
    Missing(usize),
}

/// An exported key (`cabk1-…`) as lines for paper.
#[must_use]
pub fn to_paper(exported: &str) -> Vec<String> {
    let digits: Vec<&str> = exported.split('-').skip(1).collect();
    let line = |(at, groups): (usize, &[&str])| {
        format!("{}: {}  /{}", at + 1, groups.join(" "), check(at + 1, &groups.concat()))
    };
    digits.chunks(GROUPS_PER_LINE).enumerate().map(line).collect()
}

/// Two digits that depend on a line's number and all its digits.
fn check(number: usize, digits: &str) -> String {
    let hash = blake3::hash(format!("{number}:{digits}").as_bytes());
    to_hex(&hash.as_bytes()[..1])
}

/// The exported key in a text: on one line, or as lines from paper. Other lines do not matter.
///
/// # Errors
/// [`PaperError`].
pub fn from_text(text: &str) -> Result<zeroize::Zeroizing<String>, PaperError> {
    let mut digits = zeroize::Zeroizing::new(String::new());
    let mut lines = 0;
    for line in text.lines().take(LINES_MAX) {
        let line = zeroize::Zeroizing::new(line.trim().to_lowercase());
        if line.starts_with(PREFIX) {
            return Ok(line);
        }
        let Some((number, content, said)) = paper_line(&line) else { continue };
        if number != lines + 1 {
            return Err(PaperError::Missing(lines + 1));
        }
        if check(number, &content) != said {
            return Err(PaperError::Line(number));
        }
        lines = number;
        digits.push_str(&content);
    }
    if lines == 0 {
        return Err(PaperError::None);
    }
    Ok(zeroize::Zeroizing::new(format!("{PREFIX}-{}", *digits)))
}

/// Number, digits and check digits of a line that looks like one from paper.
fn paper_line(line: &str) -> Option<(usize, zeroize::Zeroizing<String>, String)> {
    let (number, rest) = line.split_once(':')?;
    let number = number.trim().parse().ok()?;
    let (content, said) = rest.split_once('/')?;
    let content: String = content.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let said: String = said.chars().filter(|c| !c.is_whitespace()).collect();
    Some((number, zeroize::Zeroizing::new(content), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "cabk1-01234567-89abcdef-00112233-44556677-8899aabb-ccddeeff-fedcba98-76543210-deadbeef";

    fn compact(text: &str) -> String {
        text.replace('-', "")
    }

    #[test]
    fn paper_is_typed_in_again() {
        let lines = to_paper(KEY);
        assert_eq!(lines.len(), 3);
        let page = format!("Key of a repository\nNote: keep / this\n{}\n", lines.join("\n"));
        assert_eq!(compact(&from_text(&page).unwrap()), compact(KEY));
        assert_eq!(compact(&from_text(&page.to_uppercase()).unwrap()), compact(KEY));
        assert_eq!(compact(&from_text(&format!("\n  {KEY}\n")).unwrap()), compact(KEY));
    }

    #[test]
    fn a_typing_error_is_told_by_its_line() {
        let mut lines = to_paper(KEY);
        let typed = lines.join("\n").replace("44556677", "44556678");
        assert_eq!(from_text(&typed), Err(PaperError::Line(2)));
        lines.remove(1);
        assert_eq!(from_text(&lines.join("\n")), Err(PaperError::Missing(2)));
        assert_eq!(from_text("nothing here"), Err(PaperError::None));
    }
}
