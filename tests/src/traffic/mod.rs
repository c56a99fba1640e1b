//! Open-loop load over real TCP between the two ends of a bed.

mod client;
mod request;
mod server;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use tokio::runtime::{Builder, Runtime};

pub use self::{
    client::{Outcome, Play},
    request::{REQUEST_HEADER_BYTES, Request},
    server::{Counted, MARKED_SERVICES, Mark, Marking},
};
use crate::{
    machine::{Disturbance, Watch},
    mix::{Arrival, Service},
    netns::{Bed, SERVER_V4},
    wait,
};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The way of a message: kept connections are shared among messages of the same line.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Line {
    /// TCP port of the server.
    pub port: u16,
    /// IPv4 address of the client; the kernel chooses if it is not given.
    pub from: Option<IpAddr>,
    /// Tells connections apart that one port serves to unlike users.
    pub pool: u8,
    /// Whether the connection is kept for further messages.
    pub kept: bool,
}

/// What the generator must know of a request and its reply.
pub trait Exchange: Copy + Send + 'static {
    /// When it starts, from the start of the run.
    fn at(&self) -> Duration;
    /// Which way it goes.
    fn line(&self) -> Line;
    /// Length of the request with its header.
    fn request_bytes(&self) -> u32;
    /// Length of the reply.
    fn reply_bytes(&self) -> u64;
}

impl Exchange for Arrival {
    fn at(&self) -> Duration {
        self.at
    }

    fn line(&self) -> Line {
        Line {
            port: self.service.port(),
            from: None,
            pool: 0,
            kept: self.kept,
        }
    }

    fn request_bytes(&self) -> u32 {
        self.request_bytes
    }

    fn reply_bytes(&self) -> u64 {
        self.reply_bytes
    }
}

/// What one run of the generator gave.
#[derive(Clone, Debug)]
pub struct Run<A = Arrival> {
    /// One entry for each arrival, in order.
    pub outcomes: Vec<Outcome<A>>,
    /// CPU time of both ends of the generator over the run's length, as a share of one core.
    pub generator_cpu: f64,
    /// What else went on in the machine.
    pub disturbance: Disturbance,
}

/// Plays `arrivals` from the bed's client to its server and waits for the end; `look` is called
/// some times a second meanwhile.
///
/// # Errors
///
/// When sockets can't be opened, when `look` fails (the run then ends early), or on an interrupt.
pub fn run<A: Exchange>(
    bed: &Bed,
    arrivals: Vec<A>,
    play: Play,
    marking: Option<Marking>,
    look: &mut dyn FnMut() -> Result<()>,
) -> Result<Run<A>> {
    let started = Instant::now();
    let ports: BTreeSet<u16> = arrivals.iter().map(|arrival| arrival.line().port).collect();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = bed.server.thread("server", move || {
        let runtime = runtime()?;
        let listeners = runtime.block_on(server::listen(play.server, ports, marking))?;
        ready.send(()).context("the run was given up")?;
        runtime.block_on(server::serve(listeners, marking, async {
            // A dropped sender means stop as well.
            drop(stopped.await);
        }));
        thread_cpu()
    })?;
    if is_ready.recv().is_err() {
        return Err(server
            .join()
            .map_err(|_panic| anyhow!("the server thread panicked"))?
            .map_or_else(
                |error| error,
                |_cpu| anyhow!("the server ended before it served"),
            ));
    }
    let halt = Arc::new(AtomicBool::new(false));
    let halted = Arc::clone(&halt);
    let client = bed.client.thread("client", move || {
        let outcomes = runtime()?.block_on(client::play(arrivals, play, halted));
        Ok((outcomes, thread_cpu()?))
    })?;
    let mut watch = Watch::start()?;
    let mut looked = Ok(());
    while !client.is_finished() {
        std::thread::sleep(LOOK_EVERY);
        if looked.is_ok() && !wait::interrupted() {
            looked = watch.look().and_then(|()| look());
        } else {
            halt.store(true, Ordering::Relaxed);
        }
    }
    let (outcomes, client_cpu) = client
        .join()
        .map_err(|_panic| anyhow!("the client thread panicked"))??;
    let elapsed = started.elapsed();
    drop(stop);
    let server_cpu = server
        .join()
        .map_err(|_panic| anyhow!("the server thread panicked"))??;
    looked?;
    if wait::interrupted() {
        return Err(anyhow!("interrupted"));
    }
    Ok(Run {
        outcomes,
        generator_cpu: (client_cpu + server_cpu).as_secs_f64() / elapsed.as_secs_f64(),
        disturbance: watch.finish()?,
    })
}

/// Time that a message of one byte takes on the idle bed.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// Over a connection that stood already.
    pub kept: Duration,
    /// With the handshake.
    pub fresh: Duration,
}

impl Base {
    /// That of a message by whether its connection is kept.
    #[must_use]
    pub const fn of(&self, kept: bool) -> Duration {
        if kept { self.kept } else { self.fresh }
    }
}

/// Measures [`Base`] as the median of some messages sent one at a time.
///
/// # Errors
///
/// As for [`run`], or when a message failed.
pub fn measure_base(bed: &Bed) -> Result<Base> {
    const COUNT: u32 = 60;
    let median = |kept: bool| {
        let arrivals = (0..COUNT)
            .map(|number| Arrival {
                at: Duration::from_millis(5) * number,
                service: Service::Rpc,
                request_bytes: 100,
                reply_bytes: 1,
                kept,
            })
            .collect();
        let play = Play {
            server: SERVER_V4,
            drain: Duration::from_secs(2),
            band: None,
        };
        let run = run(bed, arrivals, play, None, &mut || Ok(()))?;
        let mut times: Vec<Duration> = run
            .outcomes
            .iter()
            .filter_map(|outcome| outcome.completion)
            .collect();
        if times.len() < run.outcomes.len() {
            return Err(anyhow!("messages got lost on the idle bed"));
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    };
    Ok(Base {
        kept: median(true)?,
        fresh: median(false)?,
    })
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// CPU time of the calling thread so far.
fn thread_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::{Plan, schedule};

    #[test]
    fn every_byte_arrives_on_every_service() {
        let bed = Bed::host().unwrap();
        let plan = Plan {
            rate_bps: 200_000_000,
            load: 0.8,
            length: Duration::from_millis(800),
            shrink: 4.0,
        };
        let arrivals = schedule(&plan, 3);
        let play = Play {
            server: SERVER_V4,
            drain: Duration::from_secs(20),
            band: None,
        };
        let run = run(&bed, arrivals.clone(), play, None, &mut || Ok(())).unwrap();
        assert_eq!(run.outcomes.len(), arrivals.len());
        for (outcome, arrival) in run.outcomes.iter().zip(&arrivals) {
            assert_eq!(outcome.arrival, *arrival);
            assert_eq!(outcome.received_bytes, arrival.reply_bytes, "{outcome:?}");
            assert!(
                outcome.completion.is_some() && !outcome.failed,
                "{outcome:?}"
            );
        }
    }
}
