//! The table of cases of the dialect, one by one, and what hostile bytes get.

use proptest::prelude::*;

use super::*;

fn one(line: &str) -> Result<Option<String>, Fault> {
    let file = parse(format!("[S]\n{line}").as_bytes()).map_err(|e| e.fault)?;
    assert_eq!(file.entries.len(), 1, "{line:?}");
    Ok(file.entries[0].value.clone())
}

fn value(text: &str) -> Result<Option<String>, Fault> {
    Ok(Some(text.to_string()))
}

macro_rules! cases {
    ($($name:ident: $line:expr => $want:expr;)*) => {
        $(#[test] fn $name() { assert_eq!(one($line), $want); })*
    };
}

cases! {
    semicolon_after_a_blank_starts_a_comment: "A = x ; c" => value("x");
    unquoted_hash_cuts_the_value: "A = x#y" => value("x");
    quotes_keep_hash_and_semicolon: "A = \"x#y;z\" ; c" => value("x#y;z");
    nothing_after_assign_is_empty: "A =" => value("");
    key_alone_is_blank: "A" => Ok(None);
    key_alone_with_comment_is_blank: "A ; c" => Ok(None);
    quotes_within_a_value_and_trailing_blanks: "A = a\"b;c\"d  " => value("ab;cd");
    escaped_backslash_within_quotes: r#"A = "C:\\tmp""# => value(r"C:\tmp");
    unquoted_backslash_is_an_error: r"A = C:\tmp" => Err(Fault::Backslash);
    unquoted_backslash_before_a_quote: r#"A = x \"q\" y"# => value("x \"q\" y");
    backslash_at_line_end_continues: "A = a\\\nb" => value("ab");
    backslash_at_line_end_with_carriage_return: "A = a\\\r\nb" => value("ab");
    single_quotes_are_kept: "A = 'single'" => value("'single'");
    unknown_escape_is_an_error: r#"A = "a\qb""# => Err(Fault::Escape);
    unterminated_quote_is_an_error: "A = \"unterminated" => Err(Fault::Unterminated);
    quotes_do_not_span_lines: "A = \"a\nb\"" => Err(Fault::Unterminated);
    underscore_in_a_key_is_an_error: "A_b = 1" => Err(Fault::Illegal('_'));
    digits_and_hyphens_in_a_key: "A-1 = 1" => value("1");
    carriage_return_before_new_line_is_dropped: "A = b \r\n" => value("b");
    leading_blanks_and_tabs: " \t A\t=\t b" => value("b");
    only_the_first_assign_splits: "URL = postgres://u@h/db?options=-csearch_path=connect"
        => value("postgres://u@h/db?options=-csearch_path=connect");
    no_blanks_around_assign: "A=b" => value("b");
    quoted_new_line_and_tab: r#"A = "a\nb\tc""# => value("a\nb\tc");
    blanks_between_words_stay: "A = a  b \t" => value("a  b");
    quoted_trailing_blank_stays: "A = \"a \" " => value("a ");
    comment_right_after_assign: "A = # c" => value("");
    two_words_need_an_assign: "A b" => Err(Fault::Assign);
    value_with_text_beyond_ascii: "A = Jos\u{e9} \u{2019}" => value("Jos\u{e9} \u{2019}");
    key_that_starts_with_a_digit: "1A = b" => Err(Fault::Illegal('1'));
}

fn fault(text: &str) -> Option<Fault> {
    parse(text.as_bytes()).err().map(|e| e.fault)
}

#[test]
fn section_headers() {
    assert_eq!(fault("[S.sub]"), Some(Fault::SectionEnd));
    assert_eq!(fault("[S \"\"]"), Some(Fault::EmptySubsection));
    assert_eq!(fault("[S] A = 1"), Some(Fault::AfterSection));
    assert_eq!(fault("A=1"), Some(Fault::NoSection));
    assert_eq!(fault("[]"), Some(Fault::SectionName));
    assert_eq!(fault("[S"), Some(Fault::SectionEnd));
    assert_eq!(fault("[S ; c\n]"), Some(Fault::SectionEnd));
    assert_eq!(fault("[S \"x]"), Some(Fault::Unterminated));
    assert_eq!(fault("[S \"a\\nb\"]"), Some(Fault::Escape));
    assert_eq!(fault("[s \"X\"] ; c"), None);
    assert_eq!(fault("  [ Server ]\t# c\n"), None);
    let file = parse(b"[LDAP \"European \\\"AD\\\" Server\"]\nA = 1\n[ldap]\nB").unwrap();
    assert_eq!(file.entries[0].subsection.as_deref(), Some("European \"AD\" Server"));
    assert_eq!(file.entries[1].subsection, None);
    assert_eq!(&*file.entries[1].section, "ldap");
}

#[test]
fn one_leading_byte_order_mark_is_skipped() {
    assert_eq!(parse(b"\xef\xbb\xbf[S]\nA = 1").unwrap().entries.len(), 1);
    let twice = parse(b"\xef\xbb\xbf\xef\xbb\xbf[S]").unwrap_err();
    assert_eq!(twice.fault, Fault::Illegal('\u{feff}'));
}

#[test]
fn errors_name_line_and_column() {
    let place = |text: &[u8]| parse(text).map_err(|e| (e.line, e.column)).unwrap_err();
    assert_eq!(place(b"; c\n\n[S]\nA = ok\n  B = \"a\\qb\"\n"), (5, 9));
    assert_eq!(place(b"[S]\n\xc3\xa9 \xff"), (2, 3));
    assert_eq!(place(b"[S]\nA = 1\0"), (2, 6));
    assert_eq!(place(b"[S]\nA = \"open"), (2, 5));
    let e = parse(b"[S]\nPassword = \"hunter2").unwrap_err();
    assert_eq!(e.to_string(), "line 2, column 12: string not terminated");
}

#[test]
fn suspicious_cuts_are_told_and_comments_are_not() {
    let cuts = |line: &str| {
        let file = parse(format!("[S]\n{line}\n").as_bytes()).unwrap();
        file.cuts.iter().map(|c| (c.key.clone(), c.by, c.line)).collect::<Vec<_>>()
    };
    assert_eq!(cuts("Password = ab#cd"), [("Password".to_string(), '#', 2)]);
    assert_eq!(cuts("URL = postgres://u:p;w@h/db").len(), 1);
    assert_eq!(cuts("Password = #abc").len(), 1);
    assert_eq!(cuts("DataDir = /srv/a#b").len(), 1);
    assert_eq!(cuts("ServiceLogFormat = TEXT    ; TEXT or JSON"), []);
    assert_eq!(cuts("A = x; said in passing"), []);
    assert_eq!(cuts("Password = abc ; the usual comment"), []);
    assert_eq!(cuts("Password = \"ab#cd\""), []);
    assert_eq!(cuts("Password ; to come"), []);
}

#[test]
fn secrets_are_known_by_their_keys() {
    for key in ["Password", "InstrumentationPassword", "EncryptionKey", "ClientSecret", "SecretKey"]
    {
        assert!(is_secret_key(key), "{key}");
    }
    for key in ["EncryptionKeyFile", "SecretKeyFile", "ClientSecretFile", "DataDir", "URL"] {
        assert!(!is_secret_key(key), "{key}");
    }
    let file = parse(b"[Postgres]\nPassword = hunter2").unwrap();
    assert!(!format!("{file:?}").contains("hunter2"));
}

#[test]
fn too_much_is_refused() {
    let long = vec![b';'; usize::try_from(SITE_FILE_MAX).unwrap() + 1];
    assert_eq!(parse(&long).unwrap_err().fault, Fault::TooLong(SITE_FILE_MAX + 1));
    let many = format!("[S]\n{}", "A\n".repeat(ENTRIES_MAX + 1));
    assert_eq!(parse(many.as_bytes()).unwrap_err().fault, Fault::TooMany);
}

#[test]
fn one_very_long_line_takes_linear_time() {
    let line = format!("[S]\nA = {}\nB = \"{}", "x ".repeat(2 << 20), "y".repeat(4 << 20));
    assert_eq!(parse(line.as_bytes()).unwrap_err().fault, Fault::Unterminated);
}

#[test]
fn a_real_looking_file() {
    let text = "; Connect configuration file\n\n[Server]\n; SenderEmail = account@company.com\n\
        DataDir = /data\nAddress =\n\n[Python]\nEnabled = TRUE\n\
        Executable = /opt/python/3.11/bin/python\nExecutable = /opt/python/3.12/bin/python\n\n\
        # Katie's hack\n[RPackageRepository \"CRAN\"]\nURL = https://p.example/cran/latest";
    let file = parse(text.as_bytes()).unwrap();
    let all: Vec<_> = file.entries.iter().map(|e| (e.key.as_str(), e.line)).collect();
    assert_eq!(
        all,
        [
            ("DataDir", 5),
            ("Address", 6),
            ("Enabled", 9),
            ("Executable", 10),
            ("Executable", 11),
            ("URL", 15)
        ]
    );
    assert!(file.cuts.is_empty());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn arbitrary_gcfg_like_text_never_panics(text in "(\u{feff})?([\\[\\]\"\\\\;#= \t\r\nA-Ca-c1_-]|\u{e9}){0,200}") {
        if let Ok(file) = parse(text.as_bytes()) {
            for entry in file.entries {
                prop_assert!(!entry.key.is_empty());
            }
        }
    }

    #[test]
    fn what_is_quoted_comes_back(value in "[^\0\r\n\\\\\"]{0,60}") {
        let file = parse(format!("[S]\nA = \"{value}\" ; c").as_bytes());
        prop_assert_eq!(file.map(|f| f.entries[0].value.clone()), Ok(Some(value)));
    }
}
