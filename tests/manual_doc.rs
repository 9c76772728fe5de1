//! `docs/manual.md` names the exit codes, and its commands and options exist.

use std::path::Path;

use cabk::cli::args::Cli;
use cabk::cli::exit::Exit;
use clap::{CommandFactory, Parser};

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn all_exit_codes_are_listed_and_no_other() {
    let text = document("docs/manual.md");
    let listed: Vec<u8> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()?.parse().ok())
        .collect();
    assert_eq!(listed, Exit::ALL.map(Exit::code));
}

/// What follows `cabk` in a code block or in code marks, up to what is for the shell.
fn commands(text: &str) -> Vec<Vec<String>> {
    let words = |piece: &str| {
        let end = |word: &&str| !["#", ">", "|", "||", "&&"].contains(word);
        piece.split_whitespace().take_while(end).map(str::to_owned).collect()
    };
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.extend(line.trim_start().strip_prefix("cabk ").map(words));
        } else {
            let code = line.split('`').skip(1).step_by(2);
            found.extend(code.filter_map(|code| code.strip_prefix("cabk ")).map(words));
        }
    }
    found
}

#[test]
fn commands_of_the_documents_are_understood() {
    let mut count = 0;
    for name in ["README.md", "docs/manual.md", "docs/configuration.md"] {
        for words in commands(&document(name)) {
            // `cabk COMMAND --help` and the like speak of commands, and are none.
            if words.is_empty() || words[0].chars().all(char::is_uppercase) {
                continue;
            }
            count += 1;
            let mut typed = vec!["cabk".to_owned()];
            typed.extend(
                words.iter().map(
                    |word| {
                        if word == "ID" { "3f9a21".to_owned() } else { word.clone() }
                    },
                ),
            );
            match Cli::try_parse_from(&typed) {
                Ok(_) => {}
                Err(error) if !error.use_stderr() => {}
                Err(error) if typed.len() == 2 => {
                    let known = Cli::command().get_subcommands().any(|c| c.get_name() == typed[1]);
                    assert!(known, "{name}: {typed:?}: {error}");
                }
                Err(error) => panic!("{name}: {typed:?}: {error}"),
            }
        }
    }
    assert!(count > 25, "{count}");
}
