//! `init` where somebody sits at a terminal.

use std::process::{Command, Output, Stdio};

use super::common::skip;
use super::place::Place;

/// Runs a program on a terminal of its own. The arguments come in threes until `--`: what it asks,
/// whether the answer must not be seen, and the answer. Prints all that appears on the terminal.
const SCRIPT: &str = r#"
import os, pty, select, sys, termios, time
args = sys.argv[1:]
cut = args.index('--')
steps, program = args[:cut], args[cut + 1:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(program[0], program)
end = time.monotonic() + 120
seen = b''
def more():
    global seen
    if time.monotonic() > end:
        sys.exit('waited too long; seen: %r' % seen)
    if select.select([fd], [], [], 0.1)[0]:
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b''
        seen += data
        return data != b''
    return True
for at in range(0, len(steps), 3):
    question, hidden, answer = steps[at].encode(), steps[at + 1] == 'hidden', steps[at + 2]
    start = len(seen) if at == 0 else start
    while question not in seen[start:]:
        if not more():
            sys.exit('ended before %r; seen: %r' % (question, seen))
    start += seen[start:].index(question) + len(question)
    while hidden and termios.tcgetattr(fd)[3] & termios.ECHO:
        if time.monotonic() > end:
            sys.exit('%r shows its answer' % question)
        time.sleep(0.002)
    os.write(fd, answer.encode() + b'\n')
while more():
    pass
sys.stdout.buffer.write(seen)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

const FIRST: &str = "password of the repository: ";
const AGAIN: &str = "password of the repository, again: ";
const OFFER: &str = "Make a recovery key";

fn python_is_missing() -> bool {
    let ran = Command::new("python3").args(["-c", "import pty"]).stderr(Stdio::null()).status();
    let missing = !ran.is_ok_and(|status| status.success());
    if missing {
        skip("python3, which makes the terminal, is not there");
    }
    missing
}

/// The program on a terminal, with answers to its questions.
fn on_a_terminal(place: &Place, answers: &[(&str, &str)], args: &[&str]) -> (i32, String) {
    let mut command = place.command(&[]);
    let program = command.get_program().to_owned();
    let mut python = Command::new("python3");
    python.env_clear().envs(
        command
            .env_remove("CABK_PASSWORD")
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
    );
    python.args(["-c", SCRIPT]);
    for (question, answer) in answers {
        let hidden = if question.contains("password") { "hidden" } else { "shown" };
        python.args([question, hidden, answer]);
    }
    let Output { status, stdout, stderr } =
        python.arg("--").arg(program).args(args).stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&stderr);
    assert!(stderr.is_empty(), "{told}");
    (status.code().unwrap(), String::from_utf8(stdout).unwrap().replace("\r\n", "\n"))
}

fn opens_with(place: &Place, password: &str) -> Option<i32> {
    let mut command = place.command(&["snapshots"]);
    command.env("CABK_PASSWORD", password).output().unwrap().status.code()
}

#[test]
fn init_asks_twice_and_its_recovery_key_opens_the_repository() {
    if python_is_missing() {
        return;
    }
    let place = Place::new();
    let typed = "typed by hand \u{fc}";
    let answers = [(FIRST, typed), (AGAIN, typed), (OFFER, "")];
    let (code, seen) = on_a_terminal(&place, &answers, &["init"]);
    assert_eq!(code, 0, "{seen}");
    assert!(!seen.contains("typed by hand"), "the password is not shown: {seen}");
    let (_, rest) = seen.split_once("Recovery key, shown only now:").expect(&seen);
    let key = rest.trim_start().lines().next().unwrap().trim();
    assert!(key.len() > 20 && key.contains('-'), "{key}");
    assert_eq!(opens_with(&place, typed), Some(0));
    assert_eq!(opens_with(&place, key), Some(0));
    assert_eq!(opens_with(&place, "typed by hand"), Some(12));
    // A recovery key is typed where a password is asked for.
    let (code, seen) = on_a_terminal(&place, &[(FIRST, key)], &["--json", "key", "list"]);
    assert_eq!(code, 0, "{seen}");
    assert!(!seen.contains(key), "{seen}");
    let list: serde_json::Value = serde_json::from_str(&seen[seen.find('{').unwrap()..]).unwrap();
    let kinds: Vec<_> = list["keys"].as_array().unwrap().iter().map(|k| &k["recovery"]).collect();
    assert_eq!(kinds, [false, true], "{list}");
}

#[test]
fn passwords_that_differ_make_nothing_and_a_recovery_key_is_an_offer() {
    if python_is_missing() {
        return;
    }
    let place = Place::new();
    let (code, seen) = on_a_terminal(&place, &[(FIRST, "one"), (AGAIN, "two")], &["init"]);
    assert_eq!(code, 2, "{seen}");
    assert!(seen.contains("the two passwords are not the same"), "{seen}");
    assert!(!place.path("repo").exists(), "nothing was made");
    let (code, seen) = on_a_terminal(&place, &[(FIRST, ""), (AGAIN, "")], &["init"]);
    assert_eq!(code, 2, "{seen}");
    assert!(seen.contains("is empty") && !place.path("repo").exists(), "{seen}");
    let answers = [(FIRST, "one"), (AGAIN, "one"), (OFFER, "n")];
    let (code, seen) = on_a_terminal(&place, &answers, &["init"]);
    assert_eq!(code, 0, "{seen}");
    assert!(!seen.contains("Recovery key") && seen.contains("key add --recovery"), "{seen}");
    assert_eq!(opens_with(&place, "one"), Some(0));
    assert_eq!(opens_with(&place, "two"), Some(12));
    assert_eq!(place.objects("keys").len(), 2, "one key in two copies");
}
