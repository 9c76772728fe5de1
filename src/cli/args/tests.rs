use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("cabk").chain(line.split_whitespace()))
}

fn wrong(line: &str) -> String {
    let error = parse(line).expect_err(line);
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

/// Every command and option has a help text that is a sentence or part of one, and each command
/// names each of its options in `--help`.
#[test]
fn everything_has_help() {
    fn look(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        for arg in command.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 5, "{} {} has no help", command.get_name(), arg.get_id());
            assert!(!help.ends_with('.'), "{} {}: {help}", command.get_name(), arg.get_id());
        }
        command.get_subcommands().for_each(look);
    }
    look(&Cli::command());
}

#[test]
fn name_is_what_is_typed() {
    for line in ["init", "stats", "key list", "window status", "demo", "unlock", "man /x"] {
        let name = line.split(' ').next().unwrap_or_default();
        assert_eq!(parse(line).unwrap().command.name(), name);
    }
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    assert_eq!(names.len(), 15, "{names:?}");
}

#[test]
fn global_options_stand_before_and_after_the_command() {
    for line in ["-r /x --json -vv snapshots", "snapshots -r /x --json -v -v"] {
        let cli = parse(line).unwrap();
        assert_eq!(cli.global.repo.as_deref(), Some(std::ffi::OsStr::new("/x")));
        assert!(cli.global.json);
        assert_eq!(cli.global.verbose, 2);
    }
    wrong("-q -v stats");
    wrong("--password-file a --password-command b stats");
    wrong("--no-cache --cache-dir /x stats");
}

#[test]
fn snapshot_takes_all_that_the_manual_names() {
    let line = "snapshot --site /g --path /a --path /b --exclude *.log --tag t --leave-stopped \
        --allow-capture --dry-run --exclude-runtimes --env-file /e --one-file-system \
        --stop-command s --start-command t --status-command u --already-stopped \
        --max-downtime 30m --wait-quiet 2m --wait-idle 0 --site-name s --precopy never \
        --allow-volatile-state --lock-wait 1h --node local --read-timeout 5s";
    let Command::Snapshot(args) = parse(line).unwrap().command else { panic!() };
    assert_eq!(args.source.paths.len(), 2);
    assert_eq!(args.service.max_downtime, Some(std::time::Duration::from_secs(1800)));
    assert_eq!(args.service.precopy, Some(PrecopyMode::Never));
    assert_eq!(args.service.nodes, ["local"]);
    let two = parse("snapshot --node ssh://root@[::1]:2222 --node local").unwrap().command;
    let Command::Snapshot(args) = two else { panic!() };
    assert_eq!(args.service.nodes, ["ssh://root@[::1]:2222", "local"]);
    for node in ["ssh://-oProxyCommand=x", "other", "ssh://a b", "ssh://a;b"] {
        let line = ["cabk", "snapshot", "--node", node];
        assert!(Cli::try_parse_from(line).is_err(), "{node}");
    }
    wrong("snapshot --max-downtime 30");
    wrong("snapshot --service a --stop-command b");
}

#[test]
fn restore_needs_a_place_and_takes_bytes() {
    use std::os::unix::ffi::OsStringExt;
    wrong("restore latest");
    wrong("restore latest --target /x --in-place");
    wrong("restore latest --target /x --keep-extra");
    wrong("restore 12345 --target /x");
    wrong("restore latest: --target /x");
    wrong("restore nothex1 --target /x");
    wrong("restore latest --target /x --map-user a");
    let raw = std::ffi::OsString::from_vec(b"ABCDEF:/a:\xff\n".to_vec());
    let line = ["cabk".into(), "restore".into(), raw, "--in-place".into(), "--verify".into()];
    let Command::Restore(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
    assert_eq!(args.what.reference, Ref::Prefix("abcdef".to_owned()));
    assert_eq!(args.what.path.as_deref(), Some(&b"/a:\xff\n"[..]));
    let line = "restore latest --target /x --include a --exclude b --delete --numeric-ids \
        --map-user 999:connect --map-group a:b --ignore-version --with-license --no-database \
        --node local --as-site other --dry-run --no-lock";
    let Command::Restore(args) = parse(line).unwrap().command else { panic!() };
    assert_eq!(args.map_users, [NameMap { old: "999".to_owned(), new: "connect".to_owned() }]);
}

#[test]
fn check_reads_a_share() {
    let share = |line: &str| match parse(line).unwrap().command {
        Command::Check(args) => args.read_data.map(Percent::hundredths),
        _ => panic!(),
    };
    assert_eq!(share("check"), None);
    assert_eq!(share("check --read-data"), Some(10_000));
    assert_eq!(share("check --read-data=5%"), Some(500));
    assert_eq!(share("check --read-data=0.5"), Some(50));
    for line in ["0", "0.001", "101", "-1", "x", "", "1e2", "99999999", "."] {
        wrong(&format!("check --read-data={line}"));
    }
}

#[test]
fn keys_take_their_flags() {
    parse("key add --recovery --label safe").unwrap();
    parse("key add --label job --new-password-file /p").unwrap();
    parse("key passwd --new-password-command cat").unwrap();
    parse("key export --paper").unwrap();
    parse("key import /f").unwrap();
    parse("key rotate").unwrap();
    parse("key remove abcdef").unwrap();
    wrong("key add --recovery --new-password-file /p");
    wrong("key");
    parse("init --no-encryption --parity 5% --compression 9 --related-to /r").unwrap();
    wrong("init --compression 0");
    wrong("init --related-password-file /p");
}
