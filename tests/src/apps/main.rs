//! `treeline-bench-apps`: real servers and clients over one bottleneck, by their own figures.
//!
//! Nothing here makes traffic of its own but the key strokes: nginx, sshd, unbound, redis, sipp, rsync, git and iperf3
//! do, as a distribution packages them, and each says itself how long its answers took. Two greedy transfers, a typist and a
//! voice go on all the time; the applications take turns beside them, and schemes take turns on the uplink.

#![forbid(unsafe_code)]

mod background;
mod catalog;
mod figure;
mod options;
mod read;
mod report;
mod rival;
mod server;
mod site;
mod stage;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use bed::{machine::Awake, netns::Bed, wait};
use clap::Parser as _;

use crate::{
    catalog::{APPS, App},
    options::{Format, Options},
    report::LeftOut,
    site::Site,
    stage::Stage,
};

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Progress and complaints; standard output is for the result.
#[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
fn say(what: &str) {
    eprintln!("{what}");
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print(what: &str) {
    println!("{what}");
}

fn bench(options: &Options) -> Result<()> {
    if options.list {
        print(&listed());
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces and kernel programs need root: run as root"
    );
    let (apps, left_out) = chosen(&options.apps)?;
    for (app, packages) in &left_out {
        say(&format!("{app} is left out: install {packages}"));
    }
    ensure!(
        !apps.is_empty(),
        "no application is installed; `--list` names packages"
    );
    wait::catch_interrupts()?;
    let _awake = Awake::keep();
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let bed = Bed::host()?;
    bed.limit_super_packets(options.gso_max_bytes)?;
    let folder = tempfile::Builder::new()
        .prefix("treeline-apps-")
        .tempdir()?;
    let site = Site::new(&bed, folder.path());
    let report = {
        let mut stage = Stage::new(options, &site, &apps)?;
        stage.learn()?;
        for round in 0..options.rounds() {
            stage.round(round)?;
        }
        stage.report(left_out)?
    };
    let json = serde_json::to_string_pretty(&report)?;
    let path = options.out.join("apps.json");
    fs::write(&path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    print(&match options.format {
        Format::Text => report.to_string(),
        Format::Json => json,
    });
    Ok(())
}

fn listed() -> String {
    let line = |name: &str, what: &str, needs: &[catalog::Need]| {
        let packages: Vec<_> = needs.iter().map(|(_, package)| *package).collect();
        let missing = catalog::missing(needs);
        let state = if missing.is_empty() {
            "installed".to_owned()
        } else {
            format!("missing: {}", missing.join(" "))
        };
        format!(
            "{name:<13} {what}\n{:13} needs {} ({state})",
            "",
            packages.join(" ")
        )
    };
    let apps = APPS.iter().map(|app| line(app.name, app.what, app.needs));
    let parts = background::PARTS
        .iter()
        .map(|part| line(part.name, part.what, part.needs));
    apps.chain(parts).collect::<Vec<_>>().join("\n")
}

/// Applications to run, and those that are not installed with what they lack.
fn chosen(names: &[String]) -> Result<(Vec<App>, Vec<LeftOut>)> {
    for name in names {
        ensure!(
            APPS.iter().any(|app| app.name == name),
            "no application is called {name}; there are: {}",
            APPS.map(|app| app.name).join(", ")
        );
    }
    let wanted = |app: &&App| names.is_empty() || names.iter().any(|name| name == app.name);
    let (mut apps, mut left_out) = (Vec::new(), Vec::new());
    for app in APPS.iter().filter(wanted) {
        match app.missing().as_slice() {
            [] => apps.push(*app),
            packages => left_out.push((app.name.to_owned(), packages.join(" "))),
        }
    }
    for part in &background::PARTS {
        let packages = catalog::missing(part.needs);
        if !packages.is_empty() {
            left_out.push((part.name.to_owned(), packages.join(" ")));
        }
    }
    Ok((apps, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_application_is_named_with_those_that_there_are() {
        let error = chosen(&["quake".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("quake") && error.contains("redis"),
            "{error}"
        );
        assert!(listed().contains("nginx-light"));
    }

    #[test]
    fn an_installed_application_serves_and_reports_its_own_times() {
        let app = APPS.iter().find(|app| app.name == "files").unwrap();
        if !app.missing().is_empty() {
            eprintln!("skipped: install {}", app.missing().join(" "));
            return;
        }
        let bed = Bed::host().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let site = Site::new(&bed, folder.path());
        let mut servers = app.servers[0].start(&site).unwrap();
        let figures = (app.run)(&site, std::time::Duration::from_secs(1)).unwrap();
        let value = |name| {
            figures
                .iter()
                .find(|figure| figure.name == name)
                .unwrap()
                .value
        };
        assert!(
            value("count") >= 2.0 && value("p50_ms") > 0.0,
            "{figures:?}"
        );
        servers
            .iter_mut()
            .for_each(|server| server.check().unwrap());
        drop(servers);
        let served = site.run(
            site.command("curl --silent --max-time 5 http://10.99.0.1:8080/page")
                .unwrap(),
            std::time::Duration::from_secs(10),
        );
        assert!(served.is_err(), "the server is ended");
    }
}
