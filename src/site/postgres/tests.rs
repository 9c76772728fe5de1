//! What is shown of a URL and which URLs are one database.

use proptest::prelude::*;

use super::*;

#[test]
fn passwords_are_never_shown() {
    for (url, want) in [
        (
            "postgres://u:hunter2@h:5432/db?sslmode=disable",
            "postgres://u:***@h:5432/db?sslmode=disable",
        ),
        ("postgres://u@h/db", "postgres://u@h/db"),
        ("postgresql://h/db", "postgresql://h/db"),
        ("postgres://u:hunter2/x@h/db", "postgres://u:***@h/db"),
        ("postgres://u:a@hunter2@h/db", "postgres://u:***@h/db"),
        ("postgres://u:hunter2?x@h/db", "postgres://u:***@h/db"),
        ("postgres://h/db?password=hunter2&user=u", "postgres://h/db?***&user=u"),
        ("postgres://h/db?pass%77ord=hunter2", "postgres://h/db?***"),
        ("host=h password=hunter2", "(not a URL, not shown)"),
        ("mysql://u:hunter2@h/db", "(not a URL, not shown)"),
        (
            "postgres://u@h/db?options=-csearch_path=connect",
            "postgres://u@h/db?options=-csearch_path=connect",
        ),
    ] {
        assert_eq!(redact(url), want);
    }
    assert_eq!(format!("{:?}", SecretText::new("hunter2".into())), "(secret)");
}

#[test]
fn a_password_in_the_url_is_found() {
    assert!(has_password("postgres://u:p@h/db"));
    assert!(has_password("postgres://u@h/db?password=p"));
    assert!(!has_password("postgres://u:@h/db"));
    assert!(!has_password("postgres://u@h/db?sslmode=disable"));
    assert!(!has_password("nonsense"));
}

#[test]
fn one_database_under_two_urls() {
    let main = "postgres://u:p@H/db?options=-csearch_path=connect";
    for same in ["postgres://v@h:5432/db?options=-csearch_path=instrumentation", main] {
        assert!(same_database(main, same), "{same}");
    }
    for other in ["postgres://u@h/other", "postgres://u@h2/db", "postgres://u@h:5433/db", "x"] {
        assert!(!same_database(main, other), "{other}");
    }
    assert!(!same_database(main, "postgres://u@h/db?host=other"));
    assert!(same_database("postgres://u@[::1]/db", "postgres://u@[::1]:5432/db"));
}

proptest! {
    #[test]
    fn no_password_survives(password in "[a-z0-9/?@:#&=%]{0,6}QQQQ[a-z0-9/?@:#&=%]{0,6}") {
        let shown = redact(&format!("postgres://user:{password}@host/db"));
        prop_assert!(!shown.contains("QQQQ"), "{}", shown);
    }

    #[test]
    fn arbitrary_text_never_panics(url in "(postgres://)?[a-z/?@:#&=%\\[\\],.]{0,40}") {
        let _ = (redact(&url), has_password(&url), same_database(&url, "postgres://h/d"));
    }
}
