//! Reading Rust well enough to judge it: files, code without comments and texts, functions.

use std::path::{Path, PathBuf};

/// A Rust file of the package.
pub(crate) struct Source {
    /// Path below the package, with `/`.
    pub(crate) path: String,
    /// The file.
    pub(crate) text: String,
    /// The file with comments, texts and characters blanked; as many bytes, the same lines.
    pub(crate) code: String,
}

impl Source {
    /// The part that is not for tests: nothing of a file that only tests use, else what stands
    /// before the first module that is compiled for tests alone.
    pub(crate) fn product(&self) -> &str {
        let name = Path::new(&self.path).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name == "tests.rs" || self.path.contains("/tests/") || !self.path.starts_with("src/") {
            return "";
        }
        &self.code[..self.code.find("#[cfg(test)]").unwrap_or(self.code.len())]
    }

    /// The line of a byte, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }
}

/// The package's directory.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory of the package, as paths below the package, sorted.
pub(crate) fn files_below(dir: &str) -> Vec<String> {
    let mut found: Vec<String> = walkdir::WalkDir::new(root().join(dir))
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| Some(entry.path().strip_prefix(root()).ok()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    found
}

/// All Rust files of the package.
pub(crate) fn sources() -> Vec<Source> {
    ["src", "tests", "benches", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|dir| files_below(dir))
        .filter(|path| path.ends_with(".rs"))
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            let code = blanked(&text);
            assert_eq!(code.len(), text.len(), "{path}");
            Source { path, text, code }
        })
        .collect()
}

/// The text with comments and the insides of texts and characters made spaces.
pub(crate) fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// The end of the comment, text or character that begins here; the same place where none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        let found = rest[from..].windows(what.len()).position(|window| window == what);
        found.map_or(bytes.len(), |offset| at + from + offset + what.len())
    };
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return find(2, b"\n");
    }
    if rest.starts_with(b"/*") {
        return block_comment(bytes, at);
    }
    if rest[0] == b'"' {
        return quoted(bytes, at);
    }
    if !word_before && matches!(rest[0], b'r' | b'b' | b'c') {
        let mut from = 1 + usize::from(rest[0] != b'r' && rest.get(1) == Some(&b'r'));
        let raw = rest[from - 1] == b'r';
        let hashes = rest[from..].iter().take_while(|&&b| b == b'#').count();
        if raw && rest.get(from + hashes) == Some(&b'"') {
            let mut close = vec![b'"'];
            close.extend(std::iter::repeat_n(b'#', hashes));
            from += hashes + 1;
            return find(from, &close);
        }
    }
    if rest[0] == b'\'' {
        if rest.get(1) == Some(&b'\\') {
            return find(3, b"'");
        }
        let text = std::str::from_utf8(&rest[1..]).ok();
        let width = text.and_then(|text| text.chars().next()).map_or(1, char::len_utf8);
        if rest.get(1 + width) == Some(&b'\'') {
            return at + width + 2;
        }
    }
    at
}

fn quoted(bytes: &[u8], at: usize) -> usize {
    let mut next = at + 1;
    while next < bytes.len() {
        match bytes[next] {
            b'\\' => next += 2,
            b'"' => return next + 1,
            _ => next += 1,
        }
    }
    bytes.len()
}

fn block_comment(bytes: &[u8], at: usize) -> usize {
    let (mut next, mut depth) = (at + 2, 1);
    while next < bytes.len() && depth > 0 {
        match &bytes[next..] {
            [b'/', b'*', ..] => (next, depth) = (next + 2, depth + 1),
            [b'*', b'/', ..] => (next, depth) = (next + 2, depth - 1),
            _ => next += 1,
        }
    }
    next
}

/// Where a word stands by itself.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let bytes = code.as_bytes();
        let after = bytes.get(at + word.len()).copied().unwrap_or(b' ');
        let last = word.as_bytes()[word.len() - 1];
        (at == 0 || !part(bytes[at - 1])) && (!part(last) || !part(after))
    })
}

/// Functions with a body: name, first line, lines.
pub(crate) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = &code[at + 2..];
        let name: String =
            rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(end) = (!name.is_empty()).then(|| body_end(rest)).flatten() else { continue };
        let first = code[..at].matches('\n').count() + 1;
        found.push((name, first, rest[..end].matches('\n').count() + 1));
    }
    found
}

/// The end of the first block in braces, if one comes before a semicolon that ends a declaration.
fn body_end(rest: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_i32, 0_i32);
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'(' | b'[' if braces == 0 => others += 1,
            b')' | b']' if braces == 0 => others -= 1,
            b';' if braces == 0 && others == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces <= 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// First segments of all paths that begin at `prefix::`, such as `crate`, with their place: also
/// those in braces.
pub(crate) fn segments(code: &str, prefix: &str) -> Vec<(String, usize)> {
    let head = format!("{prefix}::");
    let mut found = Vec::new();
    for at in words(code, &head) {
        let from = at + head.len();
        match code[from..].strip_prefix('{') {
            Some(list) => {
                for (name, offset) in heads(list) {
                    found.push((name, from + 1 + offset));
                }
            }
            None => found.push((name_at(&code[from..]), at)),
        }
    }
    found
}

fn name_at(code: &str) -> String {
    code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of the items of a list in braces, up to its end.
fn heads(list: &str) -> Vec<(String, usize)> {
    let (mut depth, mut begin) = (0, true);
    let mut found = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begin = true,
            c if begin && !c.is_whitespace() => {
                found.push((name_at(&list[at..]), at));
                begin = false;
            }
            _ => {}
        }
    }
    found
}
