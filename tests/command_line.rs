//! The program from outside: exit codes, what stands on stdout and what on stderr.

use std::process::{Command, Output, Stdio};

fn cabk(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabk"));
    command.args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn help_and_version_are_results() {
    for args in [&["--help"][..], &["-h"], &["--version"], &["help", "snapshot"]] {
        let output = cabk(args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn wrong_usage_is_2_and_leaves_stdout_empty() {
    for args in [&[][..], &["nonsense"], &["restore", "latest"], &["stats", "--nonsense"]] {
        let output = cabk(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn with_json_wrong_usage_is_one_object() {
    let output = cabk(&["--json", "check", "--read-data=200"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let value: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(value["error"]["code"], "usage");
    assert!(value["error"]["message"].as_str().unwrap().contains("200"));
    assert!(value["error"]["hint"].is_string());
}

#[test]
fn a_configuration_that_is_named_must_be_there_and_right() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cabk.toml");
    let path = file.to_str().unwrap();
    for (args, env) in
        [(vec!["stats", "--config", path], vec![]), (vec!["stats"], vec![("CABK_CONFIG", path)])]
    {
        let output = cabk(&args, &env);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("cannot read the configuration file"));
    }
    std::fs::write(&file, "[repository]\nmin_fre = \"1\"\n").unwrap();
    let output = cabk(&["stats", "--config", path], &[]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(told.contains("cabk.toml, line 2, key repository.min_fre: unknown field"), "{told}");
}

#[test]
fn keys_without_effect_are_warned_of_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cabk.toml");
    std::fs::write(&file, "[hooks]\nbefore_stop = [\"wall\"]\n").unwrap();
    let output = cabk(&["stats", "--config", file.to_str().unwrap()], &[]);
    let told = text(&output.stderr);
    assert!(told.starts_with("cabk: warning: hooks.before_stop has no effect yet"), "{told}");
}

#[test]
fn manual_pages_and_completions_need_no_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    let env = [("CABK_CONFIG", "/nonexistent")];
    let output = cabk(&["man", man.to_str().unwrap(), "--json"], &env);
    assert_eq!(output.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let pages = value["pages"].as_array().unwrap().len();
    assert_eq!(std::fs::read_dir(&man).unwrap().count(), pages);
    let output = cabk(&["completions", "bash"], &env);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("_cabk()"));
}

#[test]
fn a_reader_that_goes_away_is_no_panic_and_a_full_disk_is_an_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cabk"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cabk"))
        .args(["completions", "zsh"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("cabk: error: cannot write the result to stdout: "));
}
