//! Completion scripts and manual pages, made from the command line's own definition.

use std::io;
use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;

/// The completion script for a shell.
#[must_use]
pub fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cabk", &mut text);
    text
}

/// All manual pages: file name and content, `cabk.1` first, then one for each command and for each
/// command of a command.
///
/// # Errors
/// What writing to memory says: never anything.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = Cli::command();
    // Globals stand on each page, and every command gets its full name, once the tree is built.
    root.build();
    let mut pages = Vec::new();
    page(&root, "cabk", &mut pages)?;
    Ok(pages)
}

fn page(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let page_of = clap_mangen::Man::new(command.clone()).source(format!("cabk {version}"));
    let mut text = Vec::new();
    page_of.manual("cabk manual").render(&mut text)?;
    pages.push((format!("{name}.1"), text));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        page(inner, &format!("{name}-{}", inner.get_name()), pages)?;
    }
    Ok(())
}

/// Writes all manual pages into a directory, which is made if it is not there, and gives their
/// names.
///
/// # Errors
/// What the operating system says.
pub fn write_pages(dir: &Path) -> io::Result<Vec<String>> {
    std::fs::create_dir_all(dir)?;
    let mut names = Vec::new();
    for (name, text) in pages()? {
        std::fs::write(dir.join(&name), text)?;
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_knows_the_commands() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            let text = String::from_utf8(script(*shell)).unwrap();
            assert!(text.contains("snapshot") && text.contains("--target"), "{shell}");
        }
    }

    #[test]
    fn each_command_has_one_page() {
        let dir = tempfile::tempdir().unwrap();
        let names = write_pages(&dir.path().join("man1")).unwrap();
        for name in ["cabk.1", "cabk-snapshot.1", "cabk-restore.1", "cabk-key-add.1"] {
            assert!(names.iter().any(|have| have == name), "{names:?}");
        }
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        assert!(names.iter().all(|name| !name.contains("help")));
        let text = std::fs::read_to_string(dir.path().join("man1/cabk-snapshot.1")).unwrap();
        assert!(text.contains("cabk\\-snapshot") && text.contains("max\\-downtime"), "{text}");
        assert!(text.contains("password\\-file"));
    }
}
