//! What systemd makes of an environment file, line by line.

use proptest::prelude::*;

use super::*;

fn one(text: &str) -> Option<String> {
    let file = parse(text.as_bytes()).unwrap();
    assert_eq!(file.faults, [], "{text:?}");
    file.variables.into_iter().next_back().map(|v| v.value)
}

#[test]
fn values() {
    for (text, want) in [
        ("A=b", "b"),
        (" A = b c \t", "b c"),
        ("A=", ""),
        ("A=\"b # c\" ", "b # c"),
        ("A='b \"c\" \\n'", "b \"c\" \\n"),
        ("A=\"b \\\"c\\\" \\$d \\n\"", "b \"c\" $d \\n"),
        ("A=b#c;d", "b#c;d"),
        ("A=b\\\n c", "b c"),
        ("A=\"b\\\nc\"", "bc"),
        ("A='b\nc'", "b\nc"),
        ("A=\"b\"'c'", "bc"),
        ("A=it's", "it's"),
        ("A=$HOME/${X}", "$HOME/${X}"),
        ("A=b\\ \\ ", "b  "),
        ("A=b\r\n", "b"),
        ("A=p@ss=w", "p@ss=w"),
        ("A=1\nA=2", "2"),
        ("# A=1\n; A=2\n\nA=3", "3"),
        ("# goes on \\\nA=3", "3"),
        ("A=\u{e9}", "\u{e9}"),
    ] {
        assert_eq!(one(text).as_deref(), Some(want), "{text:?}");
    }
}

#[test]
fn lines_and_faults_are_told() {
    let file = parse(b"A='x\ny'\nexport B=1\nnothing\nC=\"open").unwrap();
    let seen: Vec<_> = file.variables.iter().map(|v| (v.name.as_str(), v.line)).collect();
    assert_eq!(seen, [("A", 1), ("C", 5)]);
    assert_eq!(
        file.faults,
        [(3, EnvFault::Ignored), (4, EnvFault::Ignored), (5, EnvFault::Unterminated)]
    );
}

#[test]
fn what_is_no_text_is_refused() {
    assert_eq!(parse(b"A=1\nB=\xff"), Err(EnvError::NotText { line: 2 }));
    assert_eq!(parse(b"A=1\0"), Err(EnvError::NotText { line: 1 }));
    let many = "A=\n".repeat(VARIABLES_MAX + 1);
    assert_eq!(parse(many.as_bytes()), Err(EnvError::TooMany));
    let long = vec![b'#'; usize::try_from(SITE_FILE_MAX).unwrap() + 1];
    assert_eq!(parse(&long), Err(EnvError::TooLong(SITE_FILE_MAX + 1)));
}

#[test]
fn debug_shows_no_value() {
    let file = parse(b"CONNECT_POSTGRES_PASSWORD=hunter2").unwrap();
    assert!(!format!("{file:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn arbitrary_env_like_text_never_panics(text in "([A-B_=\"'\\\\#; \r\n$]){0,200}") {
        prop_assert!(parse(text.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_single_quoted_comes_back(value in "[^'\0]{0,60}") {
        let file = parse(format!("A='{value}'\n").as_bytes()).unwrap();
        prop_assert_eq!(&file.variables[0].value, &value);
    }
}
