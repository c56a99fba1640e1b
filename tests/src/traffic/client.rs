//! Plays a list of arrivals on time and measures each reply.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::LocalSet, time};

use super::request::{REQUEST_HEADER_BYTES, Request};
use crate::mix::{Arrival, Service};

const READ_BYTES: usize = 128 * 1024;
const POLL: Duration = Duration::from_millis(20);

/// What came of one arrival.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The arrival itself.
    pub arrival: Arrival,
    /// From the start (connecting counts) to the last byte; `None` if it failed or was not
    /// finished in time.
    pub completion: Option<Duration>,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// How late the generator itself started it.
    pub lateness: Duration,
    /// Whether the connection failed.
    pub failed: bool,
}

/// How the client plays.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    /// The server's address.
    pub server: IpAddr,
    /// After the last arrival, how long to wait for replies.
    pub drain: Duration,
    /// The oracle's band for a reply of this length, counted from one.
    pub band: Option<fn(u64) -> NonZeroU8>,
}

struct Player {
    play: Play,
    halt: Arc<AtomicBool>,
    idle: RefCell<[Vec<TcpStream>; Service::ALL.len()]>,
    scratch: RefCell<Vec<u8>>,
    outcomes: RefCell<Vec<Outcome>>,
    unfinished: Cell<usize>,
}

/// Starts every arrival at its time, whatever became of the earlier ones, and waits for the
/// replies within the bound of `play`, unless `halt` becomes true.
pub(super) async fn play(
    arrivals: Vec<Arrival>,
    play: Play,
    halt: Arc<AtomicBool>,
) -> Vec<Outcome> {
    let outcomes = arrivals
        .iter()
        .map(|&arrival| Outcome {
            arrival,
            completion: None,
            received_bytes: 0,
            lateness: Duration::ZERO,
            failed: false,
        })
        .collect();
    let player = Rc::new(Player {
        play,
        halt,
        idle: RefCell::default(),
        scratch: RefCell::new(vec![0; READ_BYTES]),
        outcomes: RefCell::new(outcomes),
        unfinished: Cell::new(arrivals.len()),
    });
    LocalSet::new()
        .run_until(start_all(&player, &arrivals))
        .await;
    player.outcomes.take()
}

async fn start_all(player: &Rc<Player>, arrivals: &[Arrival]) {
    let start = Instant::now();
    for (index, arrival) in arrivals.iter().enumerate() {
        let due = start + arrival.at;
        time::sleep_until(due.into()).await;
        if player.halt.load(Ordering::Relaxed) {
            return;
        }
        let player = Rc::clone(player);
        tokio::task::spawn_local(async move { player.fetch(index, due).await });
    }
    let deadline = Instant::now() + player.play.drain;
    while player.unfinished.get() > 0
        && Instant::now() < deadline
        && !player.halt.load(Ordering::Relaxed)
    {
        time::sleep(POLL).await;
    }
}

impl Player {
    async fn fetch(&self, index: usize, due: Instant) {
        let started = Instant::now();
        let arrival = self.outcomes.borrow()[index].arrival;
        self.outcomes.borrow_mut()[index].lateness = started.saturating_duration_since(due);
        let result = self.converse(index, arrival).await;
        let outcome = &mut self.outcomes.borrow_mut()[index];
        match result {
            Ok(()) => outcome.completion = Some(started.elapsed()),
            Err(_) => outcome.failed = true,
        }
        self.unfinished.set(self.unfinished.get() - 1);
    }

    async fn converse(&self, index: usize, arrival: Arrival) -> io::Result<()> {
        let mut stream = self.connection(&arrival).await?;
        let request = Request {
            request_bytes: arrival.request_bytes.max(REQUEST_HEADER_BYTES as u32),
            reply_bytes: arrival.reply_bytes,
            band: self.play.band.map(|band| band(arrival.reply_bytes)),
        };
        let mut message = vec![0; request.request_bytes as usize];
        message[..REQUEST_HEADER_BYTES].copy_from_slice(&request.encode());
        stream.write_all(&message).await?;
        let mut received = 0;
        while received < arrival.reply_bytes {
            received += self.read_some(&stream).await?;
            self.outcomes.borrow_mut()[index].received_bytes = received;
        }
        if arrival.kept {
            self.idle.borrow_mut()[arrival.service.index()].push(stream);
        }
        Ok(())
    }

    /// An idle connection if the service keeps any, else a new one: nothing ever waits.
    async fn connection(&self, arrival: &Arrival) -> io::Result<TcpStream> {
        if arrival.kept
            && let Some(stream) = self.idle.borrow_mut()[arrival.service.index()].pop()
        {
            return Ok(stream);
        }
        let server = SocketAddr::new(self.play.server, arrival.service.port());
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn read_some(&self, stream: &TcpStream) -> io::Result<u64> {
        loop {
            stream.readable().await?;
            match stream.try_read(&mut self.scratch.borrow_mut()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => return Ok(count as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
