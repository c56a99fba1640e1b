//! Plays a list of arrivals on time and measures each reply.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
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

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    task::LocalSet,
    time,
};

use super::{
    Exchange, Line,
    request::{REQUEST_HEADER_BYTES, Request},
};
use crate::mix::Arrival;

const READ_BYTES: usize = 128 * 1024;
const POLL: Duration = Duration::from_millis(20);

/// What came of one arrival.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<A = Arrival> {
    /// The arrival itself.
    pub arrival: A,
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

struct Player<A> {
    play: Play,
    halt: Arc<AtomicBool>,
    /// Connections that wait for their next message.
    idle: RefCell<HashMap<Line, Vec<TcpStream>>>,
    scratch: RefCell<Vec<u8>>,
    outcomes: RefCell<Vec<Outcome<A>>>,
    unfinished: Cell<usize>,
}

/// Starts every arrival at its time, whatever became of the earlier ones, and waits for the
/// replies within the bound of `play`, unless `halt` becomes true.
pub(super) async fn play<A: Exchange>(
    arrivals: Vec<A>,
    play: Play,
    halt: Arc<AtomicBool>,
) -> Vec<Outcome<A>> {
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

async fn start_all<A: Exchange>(player: &Rc<Player<A>>, arrivals: &[A]) {
    let start = Instant::now();
    for (index, arrival) in arrivals.iter().enumerate() {
        let due = start + arrival.at();
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

impl<A: Exchange> Player<A> {
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

    async fn converse(&self, index: usize, arrival: A) -> io::Result<()> {
        let mut stream = self.connection(arrival.line()).await?;
        let reply_bytes = arrival.reply_bytes();
        let request = Request {
            request_bytes: arrival.request_bytes().max(REQUEST_HEADER_BYTES as u32),
            reply_bytes,
            band: self.play.band.map(|band| band(reply_bytes)),
        };
        let mut message = vec![0; request.request_bytes as usize];
        message[..REQUEST_HEADER_BYTES].copy_from_slice(&request.encode());
        stream.write_all(&message).await?;
        let mut received = 0;
        while received < reply_bytes {
            received += self.read_some(&stream).await?;
            self.outcomes.borrow_mut()[index].received_bytes = received;
        }
        let line = arrival.line();
        if line.kept {
            self.idle.borrow_mut().entry(line).or_default().push(stream);
        }
        Ok(())
    }

    /// An idle connection if the line keeps any, else a new one: nothing ever waits.
    async fn connection(&self, line: Line) -> io::Result<TcpStream> {
        let idle = self.idle.borrow_mut().get_mut(&line).and_then(Vec::pop);
        if let Some(stream) = idle {
            return Ok(stream);
        }
        let server = SocketAddr::new(self.play.server, line.port);
        let stream = match line.from {
            Some(address) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(address, 0))?;
                socket.connect(server).await?
            }
            None => TcpStream::connect(server).await?,
        };
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
