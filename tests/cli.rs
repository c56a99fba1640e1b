//! The command line as a person or a script meets it.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use bed::netns::Namespace;

use crate::support::{
    agent::{Done, Site, binary},
    json::documented,
    privileged,
};

const NOBODY: u32 = 65_534;

fn call(arguments: &[&str]) -> Done {
    Done::of(Command::new(binary()).args(arguments))
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    let verbs: [&[&str]; 24] = [
        &[],
        &["run"],
        &["up"],
        &["down"],
        &["status"],
        &["record"],
        &["train"],
        &["replay"],
        &["model", "list"],
        &["model", "show"],
        &["model", "diff"],
        &["model", "push"],
        &["model", "rollback"],
        &["model", "export"],
        &["model", "import"],
        &["model", "log"],
        &["explain"],
        &["doctor"],
        &["bench"],
        &["completions"],
        &["config", "check"],
        &["config", "show"],
        &["logs"],
        &["report"],
    ];
    for verb in verbs {
        let done = call(&[verb, &["--help"]].concat()).expect(0);
        assert!(done.stdout.contains("Example"), "{verb:?}: {done:?}");
        assert!(done.stderr.is_empty(), "{verb:?}: {done:?}");
    }
    call(&["--help"]).expect(0).says("Exit codes");
    call(&["--version"])
        .expect(0)
        .says(env!("CARGO_PKG_VERSION"));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    call(&["up", "lo", "--rate", "fast"])
        .expect(2)
        .says("100mbit");
    call(&["up", "lo", "--rate", "-5mbit"]).expect(2);
    call(&["up"]).expect(2).says("IFACE");
    call(&["up", "lo", "--qdisc", "cbq"]).expect(2).says("keep");
    call(&["up", "lo", "--dscp=0=best"]).expect(2).says("af11");
    call(&["up", "lo", "--pace", "7=slow"])
        .expect(2)
        .says("100mbit");
    call(&["run", "lo", "--rate", "1mbit", "--train-every", "soon"])
        .expect(2)
        .says("30s");
    call(&["run", "lo", "--rate", "1mbit", "--sample-one-in", "3"]).expect(2);
    for flows in ["3", "16777217", "many"] {
        call(&["up", "lo", "--rate", "1mbit", "--flows", flows])
            .expect(2)
            .says("--flows");
    }
    call(&["up", "lo", "--rate", "100mb"])
        .expect(2)
        .says("did you mean `100mbit`?");
    call(&["down"]).expect(2);
    call(&["down", "lo", "--all"]).expect(2);
    call(&["frobnicate"]).expect(2);
    call(&["status", "--format", "xml"]).expect(2).says("json");
    for name in ["a/b", "..", "", &"x".repeat(33)] {
        call(&["--instance", name, "status"])
            .expect(2)
            .says("instance name");
    }
}

/// The binary where every user may run it.
pub(crate) fn for_everybody() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("treeline");
    // Another process copies: were the copy open for writing here, a child that another test
    // starts at this moment would hold it too, and a file that is being written can't be run.
    let installed = Command::new("install").args([binary(), &copy]).status();
    assert!(installed.unwrap().success());
    (directory, copy)
}

#[test]
fn without_root_what_needs_it_ends_with_3_and_the_rest_works() {
    let (_directory, copy) = for_everybody();
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        command.args(arguments);
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Done::of(&mut command)
    };
    for arguments in [
        &["run", "lo", "--rate", "1mbit"] as &[&str],
        &["up", "lo", "--rate", "1mbit"],
        &["down", "lo"],
        &["down", "--all"],
        &["status"],
        &["bench"],
        &["record", "lo", "--out", "rows.parquet"],
        &["replay", "some.pcap", "--out", "rows.parquet"],
    ] {
        call(arguments).expect(3).says("root");
    }
    let instance = format!("itest-nobody-{}", std::process::id());
    call(&["--instance", &instance, "model", "list"])
        .expect(0)
        .says("no models yet");
    call(&["--instance", &instance, "model", "log"])
        .expect(0)
        .says("nothing was decided yet");
    for arguments in [
        &["model", "rollback"] as &[&str],
        &["explain", "tcp", "10.0.0.1:1", "10.0.0.2:2"],
    ] {
        call(&[&["--instance", &instance], arguments].concat())
            .expect(3)
            .says("root");
    }
    call(&["--instance", &instance, "logs"])
        .expect(0)
        .says("no journal yet");
    call(&["--help"]).expect(0);
}

#[test]
fn an_unknown_interface_ends_with_4_and_names_those_that_exist() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("cli").unwrap();
    namespace
        .ip("link add present type veth peer name present-end")
        .unwrap();
    let site = Site::new(&namespace);
    for verb in ["up", "run"] {
        site.call(&[verb, "presnet", "--rate", "1mbit"])
            .expect(4)
            .says("did you mean present?");
        site.call(&[verb, "absent", "--rate", "1mbit"])
            .expect(4)
            .says("\"absent\"")
            .says("present")
            .says("lo");
        site.assert_no_trace();
    }
}

#[test]
fn what_is_shown_is_shown_as_json_too() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("cli").unwrap();
    namespace
        .ip("link add present type veth peer name present-end")
        .unwrap();
    let site = Site::new(&namespace);
    let status = site.call(&["--format", "json", "status"]).expect(0).json();
    assert_eq!(status["schema"], 1);
    assert_eq!(status["instance"], site.instance.name());
    assert_eq!(status["abi_version"], scheduler_common::ABI_VERSION);
    assert!(status["agent"].is_null() && status["model"].is_null());
    assert_eq!(status["interfaces"].as_array().unwrap().len(), 0);
    let models = site
        .call(&["model", "list", "--format", "json"])
        .expect(0)
        .json();
    documented("model list", &models);
    assert_eq!(models["models"].as_array().unwrap().len(), 0);
    let log = site.call(&["model", "log", "--format", "json"]);
    documented("model log", &log.expect(0).json());
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/config.toml");
    for verb in ["check", "show"] {
        let done = site.call(&["config", verb, example, "--format", "json"]);
        documented(&format!("config {verb}"), &done.expect(0).json());
    }
    let up = site
        .call(&["up", "present", "--rate", "1.5gbit", "--format", "json"])
        .expect(0)
        .json();
    documented("up", &up);
    assert_eq!(up["interface"], "present");
    let status = site.status();
    assert_eq!(status["interfaces"][0]["rate_bps"], 1_500_000_000u64);
    assert_eq!(status["counters"]["egress_packets"], 0);
    let down = site.call(&["down", "--all", "--format", "json"]);
    documented("down", &down.expect(0).json());
}

#[test]
fn a_bench_tells_what_a_packet_costs_and_disturbs_nothing() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("cli").unwrap();
    namespace
        .ip("link add present type veth peer name present-end")
        .unwrap();
    let site = Site::new(&namespace);
    let bench = ["bench", "present", "--rounds", "3"];
    let json = |more: &[&str]| {
        let done = site.call(&[&bench, more, &["--format", "json"]].concat());
        let bench = done.expect(0).json();
        documented("bench", &bench);
        bench
    };
    let idle = json(&[]);
    assert!(idle["programs"].is_null() && idle["model_generation"].is_null());
    site.assert_no_trace();
    site.call(&["up", "present", "--rate", "1mbit", "--flows", "4096"])
        .expect(0);
    let before = site.status();
    let busy = json(&["--model", "none"]);
    assert_eq!(busy["flow_entries"], 4096);
    assert!(busy["programs"]["share_of_a_core"].is_number(), "{busy}");
    let after = site.status();
    assert_eq!(before["counters"], after["counters"], "it was disturbed");
    // A decision costs more than a packet that only adds to its message, whatever the machine does.
    let costs = busy["costs"].as_array().unwrap();
    assert_eq!(costs.len(), 6);
    let least = |hook: &str, packet: &str| {
        let found = costs
            .iter()
            .find(|cost| cost["hook"] == hook && cost["packet"] == packet);
        found.unwrap()["least_ns"].as_f64().unwrap()
    };
    for hook in ["egress", "ingress"] {
        assert!(least(hook, "passed-over") > 0.0, "{busy}");
        assert!(least(hook, "known-flow") > 0.0, "{busy}");
    }
    assert!(
        least("egress", "decision") > least("egress", "known-flow"),
        "{busy}"
    );
    site.call(&bench).expect(0).says("one more of a known flow");
    site.call(&["bench", "presnet"])
        .expect(4)
        .says("did you mean present?");
    site.call(&["down", "presnet"])
        .expect(0)
        .says("did you mean present?");
}

#[test]
fn the_instance_may_come_from_the_environment() {
    if !privileged() {
        return;
    }
    let mut command = Command::new(binary());
    command
        .args(["status", "--format", "json"])
        .env("TREELINE_INSTANCE", "itest-by-environment");
    let status = Done::of(&mut command).expect(0).json();
    assert_eq!(status["instance"], "itest-by-environment");
}

#[test]
fn a_model_that_is_not_there_ends_with_6() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("cli").unwrap();
    let site = Site::new(&namespace);
    site.call(&["model", "show"]).expect(0).says("no model yet");
    site.call(&["model", "show", "5"])
        .expect(6)
        .says("000005.json");
    site.call(&["model", "show", "/nowhere/m.json"])
        .expect(6)
        .says("/nowhere/m.json");
}

#[test]
fn the_flow_table_has_the_size_asked_for_until_all_is_down() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("cli").unwrap();
    namespace
        .ip("link add present type veth peer name present-end")
        .unwrap();
    let site = Site::new(&namespace);
    assert!(site.status()["flow_table"].is_null());
    let up = |more: &[&str]| {
        let done = site.call(&[&["up", "present", "--rate", "1mbit"], more].concat());
        (done.expect(0), site.status()["flow_table"].clone())
    };
    let (_, table) = up(&["--flows", "1000"]);
    assert_eq!(table["entries"], 1024, "rounded up to a power of two");
    assert_eq!(
        (&table["created"], &table["evicted"]),
        (&0.into(), &0.into())
    );
    site.call(&["status"])
        .expect(0)
        .says("table of 1024, 0 created, 0 evicted");
    let (larger, table) = up(&["--flows", "5000"]);
    assert_eq!(table["entries"], 1024);
    larger.says("keeps its size");
    site.call(&["down", "present"]).expect(0);
    assert_eq!(
        up(&[]).1["entries"],
        scheduler_common::flow::DEFAULT_ENTRIES
    );
    site.call(&["down", "present"]).expect(0);
    site.assert_no_trace();
}

#[test]
fn completions_name_every_verb_and_colours_are_for_terminals() {
    let script = call(&["completions", "bash"]).expect(0).stdout;
    for verb in ["doctor", "observe", "rollback", "dry-run"] {
        assert!(script.contains(verb), "{verb} is missing");
    }
    call(&["completions", "tcsh"]).expect(2).says("fish");
    // `script` gives the command a terminal of its own.
    let on_terminal = |variable: &str| {
        let mut command = Command::new("script");
        let line = format!("{variable} {} doctor lo", binary().display());
        let run = ["--quiet", "--return", "--command", &line, "/dev/null"];
        Done::of(
            command
                .args(run)
                .env("TERM", "xterm")
                .env_remove("NO_COLOR"),
        )
        .stdout
    };
    assert!(on_terminal("").contains("\u{1b}[32m"));
    assert!(!on_terminal("NO_COLOR=1").contains('\u{1b}'));
}
