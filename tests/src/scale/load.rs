//! Many kept connections, and messages over them that come when they come.

use std::{
    cell::RefCell,
    env,
    io::{self, Read as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bed::{netns::Namespace, wait};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::LocalSet,
    time,
};

/// Connections that are being made at once; more would overrun the listener.
const CONNECTING: usize = 64;
const START_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// What waits unsent in a socket; enough to keep the link busy.
static BLOB: [u8; 64 * 1024] = [0x5a; 64 * 1024];
/// Sizes of replies: share of messages, least and most bytes, evenly spread on a log scale.
const SIZES: [(f64, f64, f64); 3] = [(0.85, 1e3, 1e4), (0.13, 1e4, 1e5), (0.02, 1e5, 2e6)];

/// What to play over one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) rate_bps: u64,
    pub(crate) load: f64,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Played {
    /// Reply's bytes and the milliseconds that it took, for all that came.
    pub(crate) messages: Vec<(u64, f64)>,
    /// Messages that did not come in time.
    pub(crate) unfinished: usize,
}

/// Mean of the sizes of replies.
fn mean_bytes() -> f64 {
    SIZES
        .iter()
        .map(|(share, least, most)| share * (most - least) / (most / least).ln())
        .sum()
}

fn draw(random: &mut StdRng) -> u64 {
    let mut place: f64 = random.random();
    for (share, least, most) in SIZES {
        if place < share {
            return (least * (most / least).powf(place / share)) as u64;
        }
        place -= share;
    }
    SIZES[SIZES.len() - 1].2 as u64
}

/// A server in a process of its own, as its ends of the connections are files, too; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts it inside a namespace and waits until it listens.
    pub(crate) fn start(namespace: &Namespace, at: SocketAddr) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["--serve", &at.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let server = Self {
            child: namespace.spawn(&mut command)?,
        };
        wait::until("the server's start", START_LIMIT, || {
            namespace.enter(|| Ok(std::net::TcpStream::connect(at).ok().map(drop)))
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Answers each request of eight bytes with as many bytes as it says, until standard input ends.
pub(crate) fn serve(at: SocketAddr) -> Result<()> {
    let runtime = runtime()?;
    let listener = runtime.block_on(TcpListener::bind(at))?;
    let local = LocalSet::new();
    local.spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                // The client's end of the connection is how this ends.
                drop(answer(stream).await);
            });
        }
    });
    runtime.block_on(local.run_until(async {
        let end = tokio::task::spawn_blocking(|| {
            let mut rest = Vec::new();
            io::stdin().read_to_end(&mut rest)
        });
        end.await
    }))??;
    Ok(())
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut left = stream.read_u64().await?;
        while left > 0 {
            let part = left.min(BLOB.len() as u64) as usize;
            left -= stream.write(&BLOB[..part]).await? as u64;
        }
    }
}

/// Opens the connections, then plays.
pub(crate) fn play(client: &Namespace, plan: Plan) -> Result<Played> {
    client.enter(move || {
        let local = LocalSet::new();
        runtime()?.block_on(local.run_until(async move {
            let idle = time::timeout(CONNECT_LIMIT, connect(plan))
                .await
                .with_context(|| {
                    format!("{} connections did not stand in time", plan.connections)
                })??;
            exchange(plan, idle).await
        }))
    })
}

async fn connect(plan: Plan) -> Result<Vec<TcpStream>> {
    let mut idle = Vec::with_capacity(plan.connections);
    while idle.len() < plan.connections {
        let count = CONNECTING.min(plan.connections - idle.len());
        let connecting: Vec<_> = (0..count)
            .map(|_| tokio::task::spawn_local(TcpStream::connect(plan.server)))
            .collect();
        for stream in connecting {
            let stream = stream.await?.context("a connection was refused")?;
            stream.set_nodelay(true)?;
            idle.push(stream);
        }
    }
    Ok(idle)
}

async fn exchange(plan: Plan, idle: Vec<TcpStream>) -> Result<Played> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let gap_s = mean_bytes() * 8.0 / (plan.load * plan.rate_bps as f64);
    let idle = Rc::new(RefCell::new(idle));
    let messages = Rc::new(RefCell::new(Vec::new()));
    let began = Instant::now();
    let (mut due, mut started) = (Duration::ZERO, 0);
    while due < plan.length {
        // Exponential gaps: arrivals know nothing of one another.
        due += Duration::from_secs_f64(-gap_s * random.random_range(f64::MIN_POSITIVE..1.0).ln());
        time::sleep_until((began + due).into()).await;
        let bytes = draw(&mut random);
        ensure!(
            !idle.borrow().is_empty(),
            "more messages under way than connections"
        );
        let place = random.random_range(0..idle.borrow().len());
        let stream = idle.borrow_mut().swap_remove(place);
        started += 1;
        let (idle, messages) = (Rc::clone(&idle), Rc::clone(&messages));
        tokio::task::spawn_local(async move {
            let mut stream = stream;
            let asked = Instant::now();
            if fetch(&mut stream, bytes).await.is_ok() {
                messages
                    .borrow_mut()
                    .push((bytes, asked.elapsed().as_secs_f64() * 1e3));
                idle.borrow_mut().push(stream);
            }
        });
    }
    let drained = Instant::now() + plan.length;
    while messages.borrow().len() < started && Instant::now() < drained {
        time::sleep(Duration::from_millis(20)).await;
    }
    let messages = messages.take();
    Ok(Played {
        unfinished: started - messages.len(),
        messages,
    })
}

async fn fetch(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    stream.write_u64(bytes).await?;
    let mut left = bytes as usize;
    let mut scratch = vec![0; 64 * 1024];
    while left > 0 {
        let count = stream.read(&mut scratch).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_what_is_drawn_is_the_mean_that_the_load_is_reckoned_by() {
        let mut random = StdRng::seed_from_u64(1);
        let sum: u64 = (0..200_000).map(|_| draw(&mut random)).sum();
        let mean = sum as f64 / 200_000.0;
        assert!((mean / mean_bytes() - 1.0).abs() < 0.05, "{mean}");
    }
}
