//! `treeline top` on a terminal: what it shows of real traffic, its keys, and how it leaves the terminal.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    num::NonZeroU16,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bed::{
    netns::{Bed, SERVER_V4, UPLINK},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::support::{
    agent::{Site, binary},
    json::documented,
    privileged,
};

const LIMIT: Duration = Duration::from_secs(60);

fn size(columns: u16, lines: u16) -> PtySize {
    PtySize {
        rows: lines,
        cols: columns,
        pixel_width: 0,
        pixel_height: 0,
    }
}

fn some(cells: u16) -> NonZeroU16 {
    NonZeroU16::new(cells).expect("a terminal has cells")
}

/// `treeline top` on a terminal of its own.
struct Top {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn std::io::Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Top {
    fn start(bed: &Bed, site: &Site<'_>) -> Self {
        let mut command = CommandBuilder::new(binary());
        command.args(["--instance", site.instance.name(), "top"]);
        command.env("TERM", "xterm-256color");
        let (child, master) = bed
            .server
            .enter(|| {
                let pair = native_pty_system().openpty(size(80, 24))?;
                Ok((pair.slave.spawn_command(command)?, pair.master))
            })
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(24), some(80), 0)));
        let mut output = master.try_clone_reader().unwrap();
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose other end is gone gives an error.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self {
            keys: master.take_writer().unwrap(),
            child,
            master,
            screen,
        }
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    fn await_screen(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let seen = wait::until(what, LIMIT, || {
            let shown = self.shown();
            Ok(wanted(&shown).then_some(shown))
        });
        seen.unwrap_or_else(|error| panic!("{error}; the screen:\n{}", self.shown()))
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn resize(&self, columns: u16, lines: u16) {
        self.screen
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(some(lines), some(columns));
        self.master.resize(size(columns, lines)).unwrap();
    }

    /// Waits for its end; it must be a good one, and leave the terminal as it was.
    #[track_caller]
    fn ended(mut self) {
        let status = wait::until("the end of top", LIMIT, || Ok(self.child.try_wait()?));
        let status = status.unwrap_or_else(|error| panic!("{error}:\n{}", self.shown()));
        assert_eq!(status.exit_code(), 0, "{status}");
        wait::until("the terminal as it was", LIMIT, || {
            let parser = self.screen.lock().unwrap();
            let screen = parser.screen();
            Ok((!screen.alternate_screen() && !screen.hide_cursor()).then_some(()))
        })
        .unwrap();
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// A download over the uplink until dropped.
struct Download(Arc<AtomicBool>);

impl Download {
    fn start(bed: &Bed) -> Self {
        let listener = bed
            .server
            .enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = bed
            .client
            .enter(|| Ok(TcpStream::connect(address)?))
            .unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let bytes = vec![5; 1 << 16];
            while !stopped.load(Ordering::Relaxed) && server.write_all(&bytes).is_ok() {}
        });
        // It ends with the sender.
        std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(1..) = client.read(&mut bytes) {}
        });
        Self(stop)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the last line is drawn, which comes last.
fn is_whole(shown: &str) -> bool {
    let last = shown.lines().last();
    last.is_some_and(|line| line.contains("q quit"))
}

/// The number that stands before `unit`, behind `label`.
fn figure(shown: &str, label: &str, unit: &str) -> Option<f64> {
    let rest = &shown[shown.find(label)? + label.len()..];
    rest[..rest.find(unit)?].trim().parse().ok()
}

#[test]
fn it_shows_real_traffic_obeys_its_keys_and_gives_the_terminal_back() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    let site = Site::new(&bed.server);
    let agent = site.start(&["run", UPLINK, "spare", "--rate", "100mbit"]);
    let download = Download::start(&bed);
    let mut top = Top::start(&bed, &site);

    let on_uplink = |shown: &str| {
        let rate = figure(shown, "sends", "Mbit/s");
        shown.contains("uplink") && rate > Some(1.0) && is_whole(shown)
    };
    let shown = top.await_screen("a rate on the uplink", on_uplink);
    let pid = site.instance.agent_pid().unwrap();
    assert!(shown.contains(&format!("agent pid {pid}")), "{shown}");
    assert!(shown.contains("none: bytes already sent decide"), "{shown}");
    assert!(shown.contains("1 flow in 1,"), "{shown}");
    assert_eq!(shown.lines().count(), 24, "{shown}");
    // The kernel measures while it is open.
    let cost = |shown: &str| figure(shown, "egress", "ns a packet").unwrap_or(0.0);
    let shown = top.await_screen("the cost of the programs", |shown| cost(shown) > 0.0);
    assert!(cost(&shown) < 1e6, "{shown}");
    assert!(shown.contains("of a core"), "{shown}");

    top.press("?");
    top.await_screen("the help", |shown| {
        shown.contains("half of the predictions")
    });
    top.press("?");
    top.await_screen("no help", |shown| {
        !shown.contains("half of the predictions")
    });
    top.press("s");
    top.await_screen("another order", |shown| {
        shown.contains("service by messages")
    });
    // Tab, then an arrow as a terminal sends it.
    for key in ["\t", "\x1b[D"] {
        top.press(key);
        let name = if key == "\t" {
            "spare  egress 2/2"
        } else {
            "uplink  egress 1/2"
        };
        let other = |shown: &str| shown.lines().any(|line| line.starts_with(name));
        let either = top.await_screen(name, other);
        assert!(either.contains("band "), "{either}");
    }
    top.press("p");
    top.await_screen("a pause", |shown| shown.contains("PAUSED"));
    top.press("p");
    top.await_screen("no pause", |shown| {
        shown.contains("over ") && !shown.contains("PAUSED")
    });

    top.resize(60, 20);
    top.await_screen("what it needs", |shown| shown.contains("needs 80 columns"));
    top.resize(100, 40);
    top.await_screen("a larger screen", |shown| {
        on_uplink(shown) && shown.lines().count() == 40
    });
    top.press("q");
    top.ended();

    // Asked to end, it gives the terminal back as well.
    let top = Top::start(&bed, &site);
    top.await_screen("the first screen", |shown| shown.contains("q quit"));
    let pid = i32::try_from(top.child.process_id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    top.ended();

    let view = site
        .call(&["top", "--once", "--every", "1s", "--format", "json"])
        .expect(0)
        .json();
    documented("top", &view);
    assert_eq!(view["links"][0]["bands"].as_array().unwrap().len(), 8);
    assert!(view["links"][0]["rate_bps"].as_f64() > Some(1e6), "{view}");
    assert!(view["services"].is_object(), "{view}");
    assert!(
        view["programs"][0]["ns_per_run"].as_f64() > Some(0.0),
        "{view}"
    );

    // Without an agent the bands are there all the same.
    assert!(agent.end(Signal::SIGTERM).0.success());
    let mut top = Top::start(&bed, &site);
    let shown = top.await_screen("a rate without an agent", on_uplink);
    assert!(
        shown.contains("no agent: bands and counters only"),
        "{shown}"
    );
    assert!(shown.contains("`treeline run` starts one"), "{shown}");
    top.press("\x03");
    top.ended();
    drop(download);
    // Where there is no screen it says what to do.
    site.call(&["top"]).expect(1).says("--once");
}
