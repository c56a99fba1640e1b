//! The control socket: its description held to a running agent, its permissions, and the commands of its page.

use std::{
    fs,
    os::unix::{fs::FileTypeExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bed::{
    netns::{Bed, CLIENT_V4, SERVER_V4, UPLINK},
    openapi::{Answer, Description, Operation},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    registry::{by_port, file},
    support::{
        agent::{Agent, Done, Site, binary},
        json::documented,
        missing, privileged,
    },
};

const LIMIT: Duration = Duration::from_secs(60);
/// Nobody.
const STRANGER: u32 = 65_534;

/// Whether there is a curl to ask with.
fn has_curl() -> bool {
    let asked = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let present = asked.is_ok_and(|status| status.success());
    if !present {
        missing(
            "curl",
            "curl is not installed: `cargo xtask setup` installs it",
        );
    }
    present
}

/// Waits until the agent's socket is open.
#[track_caller]
fn await_socket(site: &Site<'_>, agent: &Agent) {
    wait::until("the control socket", LIMIT, || {
        Ok(agent
            .log()
            .contains("the control socket is open")
            .then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let about = fs::symlink_metadata(site.instance.control_socket()).unwrap();
    assert!(about.file_type().is_socket());
}

/// An agent that reads a configuration from `directory`.
fn configured(site: &Site<'_>, directory: &Path) -> Agent {
    let path = directory.join("config.toml");
    fs::write(&path, format!("[interface.{UPLINK}]\nrate = \"100mbit\"\n")).unwrap();
    let agent = site.start(&["run", "--config", path.to_str().unwrap()]);
    await_socket(site, &agent);
    agent
}

fn curl(site: &Site<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--unix-socket",
        ])
        .arg(site.instance.control_socket())
        .args(arguments);
    command
}

/// Asks by curl, and splits the answer.
fn ask(site: &Site<'_>, arguments: &[&str]) -> Answer {
    let format = "\n%{http_code} %{content_type}";
    let done = Done::of(curl(site, arguments).args(["--write-out", format])).expect(0);
    let (body, told) = done.stdout.rsplit_once('\n').unwrap();
    let (status, content_type) = told.split_once(' ').unwrap();
    Answer {
        status: status.parse().unwrap(),
        content_type: content_type.to_owned(),
        body: body.as_bytes().to_vec(),
    }
}

/// The description that the agent gives, and who holds it to that.
struct Held<'a> {
    site: &'a Site<'a>,
    description: Description,
    seen: Vec<Operation>,
}

impl<'a> Held<'a> {
    fn new(site: &'a Site<'a>) -> Self {
        let described = ask(site, &["http://treeline/v1/openapi.json"]);
        Self {
            site,
            description: Description::new(described.json().unwrap()).unwrap(),
            seen: Vec::new(),
        }
    }

    /// Asks, and holds the answer to the description.
    #[track_caller]
    fn ask(&mut self, (method, path): (&str, &str), arguments: &[&str], status: u16) -> Value {
        let operation = Operation {
            path: path.to_owned(),
            method: method.to_owned(),
        };
        let answer = ask(self.site, arguments);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{operation:?}: {text}");
        self.description
            .check(&operation, &answer)
            .unwrap_or_else(|error| panic!("{error:#}: {text}"));
        self.seen.push(operation);
        answer.json().unwrap()
    }

    #[track_caller]
    fn get(&mut self, path: &str) -> Value {
        self.ask(("get", path), &[&format!("http://treeline{path}")], 200)
    }
}

/// A connection through the uplink, and how `explain` names it.
fn connection(bed: &Bed) -> (std::net::TcpStream, String) {
    let listener = bed
        .server
        .enter(|| Ok(std::net::TcpListener::bind((SERVER_V4, 0))?))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let client = bed
        .client
        .enter(|| Ok(std::net::TcpStream::connect(address)?))
        .unwrap();
    let (mut served, peer) = listener.accept().unwrap();
    std::io::Write::write_all(&mut served, &[7; 3000]).unwrap();
    assert_eq!(peer.ip(), CLIENT_V4);
    // The client's end keeps it alive.
    (client, format!("tcp {peer} {address}"))
}

#[test]
fn a_running_agent_answers_as_it_describes() {
    if !privileged() || !has_curl() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let agent = configured(&site, directory.path());
    let (_connection, flow) = connection(&bed);
    let mut held = Held::new(&site);

    held.get("/v1/openapi.json");
    let status = held.get("/v1/status");
    assert_eq!(status["interfaces"][0]["name"], UPLINK);
    assert_eq!(
        status["interfaces"][0]["bands"].as_array().unwrap().len(),
        8
    );
    // The same as without the agent's help, but for what moves.
    let own = site.status();
    for key in ["schema", "instance", "agent", "model", "thresholds"] {
        assert_eq!(status[key], own[key], "{key}");
    }
    let services = held.get("/v1/services");
    assert_eq!(services["needed_rows"], 500);
    assert!(
        held.get("/v1/models")["models"]
            .as_array()
            .unwrap()
            .is_empty()
    );

    let pushed = file(directory.path(), "model.json", &by_port(443, 24.0));
    let text: Value = serde_json::from_str(&fs::read_to_string(&pushed).unwrap()).unwrap();
    let push = Operation {
        path: "/v1/models".to_owned(),
        method: "post".to_owned(),
    };
    held.description.check_request(&push, &text).unwrap();
    let data = format!("@{}", pushed.display());
    let arguments = [
        "--data-binary",
        &data,
        "http://treeline/v1/models?from=a.json",
    ];
    let changed = held.ask(("post", "/v1/models"), &arguments, 200);
    assert_eq!(
        (&changed["before"], &changed["acting"]),
        (&Value::Null, &json!(1))
    );
    let active = site.datapath().active().unwrap();
    assert_eq!(active.unwrap().generation, 1);
    let listed = held.get("/v1/models");
    assert_eq!(listed["acting"], 1);
    let rules = ["http://treeline/v1/models/acting?rules=true"];
    let shown = held.ask(("get", "/v1/models/acting"), &rules, 200);
    assert_eq!(shown["generation"], 1);
    assert_eq!(shown["rules"].as_array().unwrap().len(), 3, "{shown}");
    let one = ("get", "/v1/models/{generation}");
    held.ask(one, &["http://treeline/v1/models/1"], 200);
    held.ask(one, &["http://treeline/v1/models/9"], 404);

    let explain = ["-G", "http://treeline/v1/explain", "--data-urlencode"];
    let named = format!("flow={flow}");
    let explained = held.ask(
        ("get", "/v1/explain"),
        &[&explain[..], &[&named]].concat(),
        200,
    );
    assert_eq!(explained["interface"], UPLINK);
    assert!(
        explained["directions"][1]["bytes"].as_u64() >= Some(3000),
        "{explained}"
    );
    let absent = "flow=tcp 192.0.2.1:1 192.0.2.2:2";
    held.ask(
        ("get", "/v1/explain"),
        &[&explain[..], &[absent]].concat(),
        404,
    );

    let back = ("post", "/v1/models/rollback");
    let url = "http://treeline/v1/models/rollback";
    let aging = held.ask(back, &["--json", r#"{"to_aging":true}"#, url], 200);
    assert_eq!(
        (&aging["before"], &aging["acting"]),
        (&json!(1), &Value::Null)
    );
    assert!(site.datapath().active().unwrap().is_none());
    let told = held.ask(back, &["--json", "{}", url], 409);
    assert!(
        told["detail"].as_str().unwrap().contains("no model acts"),
        "{told}"
    );
    let decisions = held.get("/v1/decisions");
    let steps: Vec<&Value> = decisions["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["step"])
        .collect();
    assert_eq!(steps, ["pushed", "rolled-back"]);
    assert_eq!(decisions["decisions"][0]["file"], "a.json");

    let train = ("post", "/v1/train");
    let told = held.ask(train, &["-X", "POST", "http://treeline/v1/train"], 409);
    assert!(
        told["detail"].as_str().unwrap().contains("too few"),
        "{told}"
    );
    let reload = ("post", "/v1/reload");
    let reload_now = ["-X", "POST", "http://treeline/v1/reload"];
    let reloaded = held.ask(reload, &reload_now, 200);
    documented("config reload", &reloaded);
    assert_eq!(reloaded["interfaces"], json!([UPLINK]));
    fs::write(
        directory.path().join("config.toml"),
        "[interface.uplink]\nrate = \"fast\"\n",
    )
    .unwrap();
    let told = held.ask(reload, &reload_now, 422);
    assert!(told["detail"].as_str().unwrap().contains(":2:8:"), "{told}");
    let logs = held.get("/v1/logs");
    let messages: Vec<&Value> = logs["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["message"])
        .collect();
    assert!(messages.contains(&&json!("reload")), "{logs}");

    let seen = held.seen.iter().cloned().collect();
    assert_eq!(held.description.operations(), seen, "not asked");
    assert!(agent.end(Signal::SIGTERM).0.success());
}

/// `treeline` for this instance as somebody else.
fn as_stranger(site: &Site<'_>, directory: &Path, arguments: &[&str]) -> Done {
    // The way to the binary may be closed to others.
    let copy = directory.join("treeline");
    if !copy.exists() {
        fs::copy(binary(), &copy).unwrap();
    }
    let mut command = Command::new(copy);
    command
        .args(["--instance", site.instance.name()])
        .args(arguments);
    Done::of(command.uid(STRANGER).gid(STRANGER))
}

#[test]
fn only_who_was_let_in_may_ask_and_the_command_line_asks_for_them() {
    if !privileged() || !has_curl() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), open).unwrap();
    let agent = site.run(&[]);
    await_socket(&site, &agent);
    let mode = |site: &Site<'_>| {
        let about = fs::metadata(site.instance.control_socket()).unwrap();
        about.permissions().mode() & 0o777
    };
    assert_eq!(mode(&site), 0o600);
    let status = ["http://treeline/v1/status"];
    Done::of(curl(&site, &status).uid(STRANGER).gid(STRANGER)).expect(7);
    as_stranger(&site, directory.path(), &["status"])
        .expect(3)
        .says("root is needed");
    as_stranger(&site, directory.path(), &["train", "--now"])
        .expect(1)
        .says("--socket-group");
    as_stranger(
        &site,
        directory.path(),
        &["explain", "tcp", "192.0.2.1:1", "192.0.2.2:2"],
    )
    .expect(3)
    .says("root is needed");
    site.call(&["config", "reload"])
        .expect(2)
        .says("start the agent without IFACE");
    // A second one is refused, and leaves the first one's socket alone.
    site.call(&["run", UPLINK, "--rate", "100mbit"]).expect(7);
    ask(&site, &status).json().unwrap();

    // Killed, it leaves the socket, which hinders nobody.
    agent.kill();
    assert!(site.instance.control_socket().exists());
    site.call(&["status"]).expect(0).says("not running");
    site.call(&["train", "--now"])
        .expect(1)
        .says("treeline run");
    let agent = site.run(&["--socket-mode", "666"]);
    await_socket(&site, &agent);
    assert_eq!(mode(&site), 0o666);
    as_stranger(&site, directory.path(), &["status"])
        .expect(0)
        .says(UPLINK);
    let (_connection, flow) = connection(&bed);
    let explain: Vec<&str> = ["explain", "--dev", UPLINK]
        .into_iter()
        .chain(flow.split(' '))
        .collect();
    let explained = wait::until("the flow", LIMIT, || {
        let done = as_stranger(&site, directory.path(), &explain);
        Ok((done.code == Some(0)).then_some(done))
    });
    explained.unwrap().says("packets, silent for");
    as_stranger(
        &site,
        directory.path(),
        &["explain", "tcp", "192.0.2.1:1", "192.0.2.2:2"],
    )
    .expect(1)
    .says("has no entry");
    as_stranger(&site, directory.path(), &["train", "--now"])
        .expect(1)
        .says("too few");
    let model = file(directory.path(), "model.json", &by_port(443, 24.0));
    as_stranger(
        &site,
        directory.path(),
        &["model", "push", model.to_str().unwrap()],
    )
    .expect(0)
    .says("model 1 acts")
    .says("rollback --to-aging");
    // Which one acts is root's to know, and the agent says it.
    as_stranger(&site, directory.path(), &["model", "list"])
        .expect(0)
        .says("* acts now");
    as_stranger(
        &site,
        directory.path(),
        &["model", "rollback", "--to-aging"],
    )
    .expect(0)
    .says("goes on learning");
    site.call(&["model", "log"])
        .expect(0)
        .says("model.json as model 1");
    site.call(&["model", "rollback", "9"])
        .expect(6)
        .says("000009.json")
        .says("there are: 1");
    assert!(agent.end(Signal::SIGTERM).0.success());
    assert!(!site.instance.control_socket().exists());
    for (option, value, told) in [
        ("--socket-mode", "777", "such as 600"),
        ("--socket-group", "no-such-group", "groupadd"),
    ] {
        site.call(&["run", UPLINK, option, value])
            .expect(2)
            .says(told);
    }
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    if !privileged() || !has_curl() {
        return;
    }
    let page = include_str!("../docs/control.md");
    let commands: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("curl "))
        .collect();
    assert!(commands.len() > 12, "{commands:?}");
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let agent = configured(&site, directory.path());
    let (_connection, flow) = connection(&bed);
    let first = file(directory.path(), "first.json", &by_port(80, 20.0));
    site.call(&["model", "push", first.to_str().unwrap()])
        .expect(0);
    file(directory.path(), "model.json", &by_port(443, 24.0));
    let socket = site.instance.control_socket().display().to_string();
    for command in commands {
        let run = command
            .replace("/run/treeline/default/control.sock", &socket)
            .replace("tcp 10.0.0.1:5000 10.0.0.2:80", &flow);
        assert_ne!(run, command, "it asks another socket");
        let mut shell = Command::new("sh");
        shell.args(["-c", &run]).current_dir(directory.path());
        let answer = Done::of(&mut shell).expect(0).json();
        // Nothing was learned yet, so that alone can't be done.
        let expected = if command.contains("/v1/train") {
            409
        } else {
            200
        };
        let status = answer.get("status").and_then(Value::as_u64).unwrap_or(200);
        assert_eq!(status, expected, "{command}: {answer}");
    }
    assert!(agent.end(Signal::SIGTERM).0.success());
}

#[test]
fn a_cycle_that_is_asked_for_begins_and_services_are_told_apart() {
    /// Of the service that is asked.
    const PORT: u16 = 8080;
    const CONNECTIONS: u64 = 40;
    if !privileged() || !has_curl() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let few = ["--train-every", "10h", "--min-samples", "20"];
    let agent = site.run(&few);
    await_socket(&site, &agent);
    let listener = bed
        .server
        .enter(|| Ok(std::net::TcpListener::bind((SERVER_V4, PORT))?))
        .unwrap();
    for _ in 0..CONNECTIONS {
        let client = bed
            .client
            .enter(|| Ok(std::net::TcpStream::connect((SERVER_V4, PORT))?))
            .unwrap();
        let (mut served, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut served, &[7; 9000]).unwrap();
        drop(served);
        let mut client = client;
        let read = std::io::Read::read_to_end(&mut client, &mut Vec::new()).unwrap();
        assert_eq!(read, 9000);
    }
    let mut held = Held::new(&site);
    let services = wait::until("labelled rows", LIMIT, || {
        let services = held.get("/v1/services");
        Ok((services["rows"].as_u64() >= Some(20)).then_some(services))
    })
    .unwrap();
    let known = services["services"].as_array().unwrap();
    let service = known
        .iter()
        .find(|it| it["port"] == PORT)
        .expect("the service");
    assert_eq!(service["protocol"], 6);
    assert!(
        service["messages"].as_u64() <= Some(CONNECTIONS),
        "{service}"
    );
    assert_eq!(service["median_bytes"], 9000, "{service}");
    assert_eq!(
        service["foretold"],
        Value::Null,
        "no model acted: {service}"
    );

    let train = ("post", "/v1/train");
    let begun = held.ask(train, &["-X", "POST", "http://treeline/v1/train"], 202);
    // `treeline train --now` prints what it is answered.
    documented("train --now", &begun);
    assert!(begun["rows"].as_u64() >= Some(20), "{begun}");
    // Whatever comes of it, the learner says so.
    wait::until("what came of the cycle", LIMIT, || {
        let log = agent.log();
        let outcomes = ["candidate refused", "nothing trained", "in the shadow"];
        Ok(outcomes.iter().any(|it| log.contains(it)).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    assert!(agent.end(Signal::SIGTERM).0.success());
}
