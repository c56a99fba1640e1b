//! The loop: readings, keys, signals, and a terminal that is given back.

use std::{io, sync::Arc, time::Duration};

use crossterm::event::{Event, EventStream};
use futures::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinError, JoinHandle},
    time::MissedTickBehavior,
};

use super::{
    reading::{Eyes, Reading},
    screen,
    state::{Pressed, State},
    view::View,
};
use crate::{instance::Instance, uplink::UplinkError};

/// Why it ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// No screen to draw on.
    #[error("`treeline top` needs a terminal; `--once` prints one reading without")]
    NoTerminal,
    /// The terminal is gone.
    #[error("cannot use the terminal")]
    Terminal(#[from] io::Error),
    /// Nothing can be read.
    #[error(transparent)]
    Reading(#[from] UplinkError),
    /// A reading broke off.
    #[error("a reading broke off")]
    Broken(#[from] JoinError),
}

/// Two readings, so long apart.
///
/// # Errors
/// Nothing can be read.
pub async fn once(instance: &Instance, every: Duration) -> Result<View, TopError> {
    let eyes = Eyes::open(instance);
    let before = eyes.read().await?;
    tokio::time::sleep(every).await;
    Ok(View::of(Some(&before), &eyes.read().await?))
}

/// Gives the terminal back, also where an error or a panic ends it.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows readings until `q` or a signal.
///
/// # Errors
/// There is no terminal, or nothing can be read.
pub async fn run(instance: &Instance, every: Duration) -> Result<(), TopError> {
    if !io::IsTerminal::is_terminal(&io::stdout()) {
        return Err(TopError::NoTerminal);
    }
    let eyes = Arc::new(Eyes::open(instance));
    // An error is for the screen that is there now.
    let first = eyes.read().await?;
    let mut signals = Signals::new()?;
    // Before the terminal is changed, so that a failure half-way is undone as well.
    let _restored = Restored;
    let mut terminal = ratatui::try_init()?;
    watch(&mut terminal, eyes, first, (every, &mut signals)).await
}

/// What ends it from outside: the terminal is given back all the same.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn watch(
    terminal: &mut DefaultTerminal,
    eyes: Arc<Eyes>,
    first: Reading,
    (every, signals): (Duration, &mut Signals),
) -> Result<(), TopError> {
    let mut keys = EventStream::new();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let mut state = State::default();
    let mut view = View::of(None, &first);
    let mut before = first;
    // Beside the keys: an agent that is slow to answer slows no key.
    let mut reading: Option<JoinHandle<Result<Reading, UplinkError>>> = None;
    loop {
        terminal.draw(|frame| screen::draw(frame, &view, &state))?;
        tokio::select! {
            () = signals.any() => return Ok(()),
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) => {
                    if state.press(key, view.links.len()) == Pressed::Quit {
                        return Ok(());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = tick.tick(), if !state.is_paused && reading.is_none() => {
                let eyes = Arc::clone(&eyes);
                reading = Some(tokio::spawn(async move { eyes.read().await }));
            }
            done = finished(&mut reading) => {
                reading = None;
                let now = done??;
                // One that was under way when the pause began is left out of it.
                if !state.is_paused {
                    view = View::of(Some(&before), &now);
                    before = now;
                }
            }
        }
    }
}

/// Waits for the reading that is under way; for ever while there is none.
async fn finished(
    reading: &mut Option<JoinHandle<Result<Reading, UplinkError>>>,
) -> Result<Result<Reading, UplinkError>, JoinError> {
    match reading {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}
