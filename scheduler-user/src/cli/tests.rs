//! What a command line means, and what is said of one that means nothing.

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_shows_an_example() {
    fn check(command: &clap::Command) {
        for verb in command
            .get_subcommands()
            .filter(|verb| verb.get_name() != "help")
        {
            if verb.has_subcommands() {
                check(verb);
            } else {
                let help = verb
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(help.contains("Example"), "{}", verb.get_name());
            }
        }
    }
    check(&Cli::command());
}

#[test]
fn the_json_of_every_verb_is_described() {
    const PAGE: &str = include_str!("../../../docs/json.md");
    /// They print no result of their own.
    const WITHOUT: [&str; 2] = ["help", "completions"];
    fn check(command: &clap::Command, path: &str) {
        let shown =
            |verb: &&clap::Command| !verb.is_hide_set() && !WITHOUT.contains(&verb.get_name());
        for verb in command.get_subcommands().filter(shown) {
            let path = format!("{path} {}", verb.get_name());
            if verb.has_subcommands() {
                check(verb, &path);
                continue;
            }
            let headed = PAGE.lines().any(|line| {
                let rest = line
                    .strip_prefix("## ")
                    .and_then(|it| it.strip_prefix(&path));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" --"))
            });
            assert!(
                headed || PAGE.contains(&format!("`{path}` prints the same")),
                "docs/json.md has no section on {path}"
            );
        }
    }
    check(&Cli::command(), "treeline");
}

#[test]
fn wrong_values_say_what_is_right() {
    let refused = |args: &[&str]| {
        let all = ["treeline"].iter().chain(args);
        Cli::try_parse_from(all).unwrap_err().to_string()
    };
    assert!(refused(&["up", "eth0", "--rate", "fast"]).contains("100mbit"));
    assert!(refused(&["run", "eth0", "--rate", "1mbit", "--train-every", "x"]).contains("30s"));
    assert!(refused(&["run", "eth0", "--rate", "1mbit", "--sample-one-in", "3"]).contains("power"));
    for share in ["0", "25%", "1.1", "NaN"] {
        let told = refused(&["run", "eth0", "--network-share", share]);
        assert!(told.contains("from 0.01 to 1"), "{told}");
    }
    assert!(refused(&["run", "eth0", "--newcomer-for", "5"]).contains("30s"));
    assert!(refused(&["down"]).contains("IFACE"));
    let up = |more: &[&str]| refused(&[&["up", "eth0", "--rate", "1mbit"], more].concat());
    assert!(up(&["--steer", "urgent=0"]).contains("bulk=1-3"));
    assert!(up(&["--police", "9=1mbit"]).contains("0 to 7"));
    assert!(up(&["--ingress-rate", "1mbit", "--metadata"]).contains("cannot be used with"));
    assert!(refused(&["statsu"]).contains("status"));
    assert!(up(&["--model", "lastest"]).contains("did you mean `latest`?"));
}
