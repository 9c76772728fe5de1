use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;

use super::super::output::{Level, Shared, Warnings};
use super::*;

/// A person who answers these, in this order; without answers there is no terminal.
struct Person(RefCell<Vec<&'static str>>);

impl Prompt for Person {
    fn possible(&self) -> bool {
        !self.0.borrow().is_empty()
    }
    fn ask(&self, _: &str) -> std::io::Result<Zeroizing<String>> {
        let mut answers = self.0.borrow_mut();
        if answers.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Zeroizing::new(answers.remove(0).to_owned()))
    }
    fn answer(&self, question: &str) -> std::io::Result<String> {
        self.ask(question).map(|text| text.to_string())
    }
}

fn person(answers: &[&'static str]) -> Person {
    Person(RefCell::new(answers.to_vec()))
}

fn secret_file(dir: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn get(
    flags: &Given,
    env: &Env,
    config: &Given,
    person: &Person,
    confirm: bool,
) -> Result<String, CliError> {
    let said = Warnings::to(false, Level::Normal, Box::new(std::io::sink()));
    let source = choose(&REPOSITORY, flags, env, config, person)?;
    let password = read(&REPOSITORY, source, confirm, person, &said)?;
    Ok(String::from_utf8(password.expose().to_vec()).unwrap())
}

#[test]
fn flags_come_before_environment_before_configuration_before_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let flag = Given { file: Some(secret_file(&dir, "flag", b"flag\n")), ..Given::default() };
    let shell = Given { shell: Some("printf 'she''ll\\n'".to_owned()), ..Given::default() };
    let config = Given { file: Some(secret_file(&dir, "config", b"config")), ..Given::default() };
    let argv = Given {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo array".to_owned()],
        ..Given::default()
    };
    let file = secret_file(&dir, "env", b"envfile");
    let all = Env::fixed(&[
        ("CABK_PASSWORD_FILE", file.to_str().unwrap()),
        ("CABK_PASSWORD_COMMAND", "echo envcommand"),
        ("CABK_PASSWORD", "envvalue"),
    ]);
    let command = Env::fixed(&[
        ("CABK_PASSWORD_FILE", ""),
        ("CABK_PASSWORD_COMMAND", "echo envcommand"),
        ("CABK_PASSWORD", "envvalue"),
    ]);
    let value = Env::fixed(&[("CABK_PASSWORD", "envvalue")]);
    let (none, empty) = (Given::default(), Env::fixed(&[]));
    let typed = || person(&["typed"]);
    assert_eq!(get(&flag, &all, &config, &typed(), false).unwrap(), "flag");
    assert_eq!(get(&shell, &all, &config, &typed(), false).unwrap(), "shell");
    assert_eq!(get(&none, &all, &config, &typed(), false).unwrap(), "envfile");
    assert_eq!(get(&none, &command, &config, &typed(), false).unwrap(), "envcommand");
    assert_eq!(get(&none, &value, &config, &typed(), false).unwrap(), "envvalue");
    assert_eq!(get(&none, &empty, &config, &typed(), false).unwrap(), "config");
    assert_eq!(get(&none, &empty, &argv, &typed(), false).unwrap(), "array");
    assert_eq!(get(&none, &empty, &none, &typed(), false).unwrap(), "typed");
}

#[test]
fn without_a_terminal_it_is_an_error_with_a_hint() {
    let none = Given::default();
    let error = get(&none, &Env::fixed(&[]), &none, &person(&[]), false).unwrap_err();
    assert_eq!(error.exit.code(), 2);
    assert!(error.hint.unwrap().contains("--password-file"));
}

#[test]
fn one_newline_is_left_out_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    for (content, expected) in
        [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("\na", "\na")]
    {
        let file = Some(secret_file(&dir, "p", content.as_bytes()));
        let flag = Given { file, ..Given::default() };
        let none = Given::default();
        let got = get(&flag, &Env::fixed(&[]), &none, &person(&[]), false).unwrap();
        assert_eq!(got, expected);
    }
}

#[test]
fn empty_passwords_are_refused_wherever_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let none = Given::default();
    let empty = Env::fixed(&[]);
    let file = Given { file: Some(secret_file(&dir, "p", b"\n")), ..Given::default() };
    let command = Given { shell: Some("true".to_owned()), ..Given::default() };
    let set = Env::fixed(&[("CABK_PASSWORD", "")]);
    for error in [
        get(&file, &empty, &none, &person(&[]), false),
        get(&command, &empty, &none, &person(&[]), false),
        get(&none, &set, &none, &person(&["typed"]), false),
        get(&none, &empty, &none, &person(&[""]), false),
    ] {
        let error = error.unwrap_err();
        assert_eq!((error.exit.code(), error.code), (2, "no-password"));
    }
}

#[test]
fn commands_that_fail_or_never_end_their_output_are_refused() {
    let none = Given::default();
    for command in ["echo secret; exit 3", "yes", "kill -9 $$"] {
        let flag = Given { shell: Some(command.to_owned()), ..Given::default() };
        let error = get(&flag, &Env::fixed(&[]), &none, &person(&[]), false).unwrap_err();
        assert_eq!(error.exit.code(), 2, "{command}");
        assert!(!error.message.contains("secret"));
    }
    let argv = Given { argv: vec!["/nonexistent/program".to_owned()], ..Given::default() };
    let error = get(&none, &Env::fixed(&[]), &argv, &person(&[]), false).unwrap_err();
    assert_eq!(error.exit.code(), 2);
    let both = Given { file: Some("/x".into()), ..argv };
    let error = get(&none, &Env::fixed(&[]), &both, &person(&[]), false).unwrap_err();
    assert_eq!(error.code, "config");
}

#[test]
fn a_file_that_is_missing_or_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let none = Given::default();
    let large = secret_file(&dir, "large", &vec![b'x'; PASSWORD_MAX + 1]);
    for path in [large, dir.path().join("missing"), dir.path().to_path_buf(), "/dev/zero".into()] {
        let flag = Given { file: Some(path), ..Given::default() };
        let error = get(&flag, &Env::fixed(&[]), &none, &person(&[]), false).unwrap_err();
        assert_eq!(error.exit.code(), 2);
    }
}

#[test]
fn a_new_password_is_asked_for_twice() {
    let none = Given::default();
    let env = Env::fixed(&[]);
    assert_eq!(get(&none, &env, &none, &person(&["a", "a"]), true).unwrap(), "a");
    assert_eq!(get(&none, &env, &none, &person(&["a", "b"]), true).unwrap_err().exit.code(), 2);
}

#[test]
fn a_file_that_others_can_read_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = secret_file(&dir, "p", b"x");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let shared = Shared::default();
    let said = Warnings::to(false, Level::Normal, Box::new(shared.clone()));
    let source = Source::File(path, "--password-file".to_owned());
    read(&REPOSITORY, source, false, &person(&[]), &said).map(drop).unwrap();
    assert!(shared.text().contains("mode 0644"), "{}", shared.text());
}
