//! The Debian package: what is in it, what installing and removing it does, and its unit under systemd.

mod throwaway;
mod unit;

use std::{collections::BTreeSet, process::Command};

use self::throwaway::{Throwaway, package};
use crate::support::agent::{Done, binary};

/// The package's files, without folders.
fn files() -> Option<BTreeSet<String>> {
    let package = package()?;
    let listed = Done::of(Command::new("dpkg-deb").arg("--contents").arg(package));
    let lines = listed.expect(0).stdout;
    let of_file = |line: &str| {
        assert!(line.contains(" 0/0 "), "{line} is not root's");
        let name = line.rsplit_once(" ./")?.1;
        (!name.ends_with('/')).then(|| format!("/{name}"))
    };
    Some(lines.lines().filter_map(of_file).collect())
}

#[test]
fn the_package_holds_the_command_its_unit_and_a_page_for_each_verb() {
    let Some(files) = files() else { return };
    let mut expected: BTreeSet<String> = [
        "/usr/bin/treeline",
        "/usr/lib/systemd/system/treeline.service",
        "/etc/treeline/config.toml",
        "/usr/share/bash-completion/completions/treeline",
        "/usr/share/zsh/vendor-completions/_treeline",
        "/usr/share/fish/vendor_completions.d/treeline.fish",
        "/usr/share/doc/treeline/copyright",
        "/usr/share/doc/treeline/changelog.gz",
        "/usr/share/doc/treeline/README.md",
        "/usr/share/doc/treeline/operating.md",
    ]
    .map(str::to_owned)
    .into();
    // The reference has a heading for each verb; cli::manual holds it to the program.
    let reference = include_str!("../../docs/cli.md");
    let verbs = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## treeline"));
    for verb in verbs {
        let page = format!("treeline{}", verb.replace(' ', "-"));
        expected.insert(format!("/usr/share/man/man1/{page}.1"));
    }
    // The longer pages are compressed.
    let found: BTreeSet<String> = files
        .iter()
        .map(|name| match name.strip_suffix(".1.gz") {
            Some(page) => format!("{page}.1"),
            None => name.clone(),
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_package_says_whose_it_is_and_what_an_administrator_may_change() {
    let Some(package) = package() else { return };
    let field = |name: &str| {
        let mut command = Command::new("dpkg-deb");
        Done::of(command.arg("--field").arg(&package).arg(name))
            .expect(0)
            .stdout
    };
    assert_eq!(field("Package"), "treeline\n");
    let version = field("Version");
    assert!(version.starts_with(env!("CARGO_PKG_VERSION")), "{version}");
    let mut command = Command::new("dpkg-deb");
    let conffiles = command.arg("--info").arg(&package).arg("conffiles");
    assert_eq!(
        Done::of(conffiles).expect(0).stdout,
        "/etc/treeline/config.toml\n"
    );
}

#[test]
fn a_package_is_installed_used_and_purged_without_a_trace() {
    let Some(root) = Throwaway::still() else {
        return;
    };
    root.call("dpkg --install /run/treeline.deb").expect(0);
    root.call("treeline --version")
        .expect(0)
        .says(env!("CARGO_PKG_VERSION"));
    let copyright = root.call("cat /usr/share/doc/treeline/copyright").expect(0);
    assert!(copyright.stdout.contains("GPL-2"), "{copyright:?}");
    // What is installed asks for nothing yet, and says so.
    root.call("treeline config check")
        .expect(2)
        .says("names no interface");
    root.call("ip link add up0 type veth peer name up1 && ip link set up0 up")
        .expect(0);
    root.call("treeline doctor up0").expect(0).says("verdict");
    // Where the package manager can't stop a service, interfaces that are up are taken down all the same.
    root.call("treeline up up0 --rate 10mbit").expect(0);
    root.call("tc qdisc show dev up0").expect(0).says("htb 7e:");
    root.call("ls /sys/fs/bpf/treeline/default").expect(0);
    root.call("dpkg --remove treeline").expect(0);
    let left = root.call("tc qdisc show dev up0").expect(0);
    assert!(!left.stdout.contains("htb"), "{left:?}");
    root.call("test -e /sys/fs/bpf/treeline/default").expect(1);
    root.call("test -e /usr/bin/treeline").expect(1);
    root.call("test -e /etc/treeline/config.toml").expect(0);
    root.call("dpkg --purge treeline").expect(0);
    // What dpkg and man-db keep for all packages changes with each.
    let others = [
        "/var/lib/dpkg",
        "/var/cache",
        "/var/log",
        "/etc/systemd/system/systemd-",
    ];
    let left: Vec<String> = root
        .changes()
        .into_iter()
        .filter(|path| !others.iter().any(|other| path.starts_with(other)))
        .collect();
    assert!(left.is_empty(), "purging leaves {left:?}");
    root.call("dpkg --status treeline").expect(1);
}

#[test]
fn the_manual_and_the_completions_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    let into = |part: &str| folder.path().join(part).display().to_string();
    let mut manual = Command::new(binary());
    manual.args(["manual", "--man", &into("man")]);
    Done::of(manual.args(["--completions", &into("completions")])).expect(0);
    let has = |program: &str| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        let found = found.unwrap().status.success();
        if !found {
            eprintln!("not tried: there is no {program} here");
        }
        found
    };
    for (shell, file) in [
        ("bash", "treeline.bash"),
        ("zsh", "_treeline"),
        ("fish", "treeline.fish"),
    ] {
        if has(shell) {
            let script = into(&format!("completions/{file}"));
            Done::of(Command::new(shell).args(["-n", &script])).expect(0);
        }
    }
    if has("man") {
        let pages = std::fs::read_dir(into("man")).unwrap();
        for page in pages.map(|page| page.unwrap().path()) {
            let mut man = Command::new("man");
            man.args(["--warnings", "--local-file"]).arg(&page);
            let shown = Done::of(man.env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8")).expect(0);
            assert!(shown.stderr.is_empty(), "{}: {shown:?}", page.display());
            assert!(shown.stdout.contains("NAME"), "{}", page.display());
        }
    }
}
