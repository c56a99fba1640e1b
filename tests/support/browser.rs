//! A real browser without a window, asked through the pipe of its DevTools protocol.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use bed::netns::Namespace;
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};

/// Names of the programs, the smallest first.
const PROGRAMS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
];
/// A loaded machine takes its time to start one.
const LIMIT: Duration = Duration::from_secs(120);

/// A browser in a namespace without a network; dropping it ends it.
pub(crate) struct Browser {
    child: Child,
    commands: File,
    /// The other end of what it answers: keeps the pipe open, and ends who reads it.
    answers: File,
    messages: Receiver<Value>,
    session: Option<String>,
    next: u64,
    /// What it told unasked since the last page was opened.
    events: Vec<Value>,
    profile: tempfile::TempDir,
    _namespace: Namespace,
}

/// What a page did while it was loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Errors and warnings on the console, refused requests among them.
    pub(crate) complaints: Vec<String>,
    /// Addresses that it asked for.
    pub(crate) requests: Vec<String>,
}

/// Where a browser is, if there is one.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    PROGRAMS.iter().find_map(|name| {
        let places = folders.iter().map(|folder| folder.join(name));
        places.into_iter().find(|place| place.exists())
    })
}

impl Browser {
    pub(crate) fn start(program: &Path) -> Self {
        let namespace = Namespace::new("browser").unwrap();
        let profile = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = profile.path().join(name);
            mkfifo(&path, Mode::S_IRWXU).unwrap();
            // Open for both, so that nobody waits for the other end.
            let file = File::options().read(true).write(true).open(&path).unwrap();
            (path, file)
        };
        let (from, commands) = pipe("commands");
        let (to, answers) = pipe("answers");
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$@\" 3<\"$FROM\" 4>\"$TO\"", "sh"])
            .arg(program)
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-extensions",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("FROM", from)
            .env("TO", to)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(profile.path().join("log")).unwrap());
        let child = namespace.spawn(&mut command).unwrap();
        let (sender, messages) = mpsc::channel();
        let reader = BufReader::new(answers.try_clone().unwrap());
        thread::spawn(move || {
            for message in reader.split(0) {
                let message = message.ok().and_then(|it| serde_json::from_slice(&it).ok());
                let Some(message) = message else { break };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            answers,
            messages,
            session: None,
            next: 0,
            events: Vec::new(),
            profile,
            _namespace: namespace,
        };
        let page = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Asks for something and waits for the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).unwrap();
        let answer = self.wait(method, |message| message["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Waits for a message; what comes before it is kept.
    #[track_caller]
    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) if wanted(&message) => return message,
                Ok(message) => self.events.push(message),
                Err(why @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    let log = fs::read_to_string(self.profile.path().join("log"));
                    panic!(
                        "the browser gave no {what}: {why}\n{}",
                        log.unwrap_or_default()
                    );
                }
            }
        }
    }

    /// Opens a file as who prefers `scheme` (`light` or `dark`) sees it in a window that wide.
    #[track_caller]
    pub(crate) fn open(&mut self, file: &Path, scheme: &str, width: u32) -> Loaded {
        self.events.clear();
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false }),
        );
        let url = format!("file://{}", file.display());
        let begun = self.ask("Page.navigate", json!({ "url": url }));
        assert!(begun["errorText"].is_null(), "{begun}");
        let is_loaded = |message: &Value| message["method"] == "Page.loadEventFired";
        if !self.events.iter().any(is_loaded) {
            self.wait("loaded page", is_loaded);
        }
        let complaints = self.events.iter().filter(|it| {
            let method = it["method"].as_str().unwrap_or_default();
            [
                "Log.entryAdded",
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
            ]
            .contains(&method)
        });
        let requests = self.events.iter().filter_map(|it| {
            let sent = it["method"] == "Network.requestWillBeSent";
            let url = it["params"]["request"]["url"].as_str()?;
            sent.then(|| url.to_owned())
        });
        Loaded {
            complaints: complaints.map(Value::to_string).collect(),
            requests: requests.collect(),
        }
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // No JSON: who reads the answers ends.
        drop(self.answers.write_all(b"end\0"));
    }
}
