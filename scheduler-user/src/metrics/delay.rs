//! How long packets wait in the bands, measured from outside at random moments.
//!
//! About once a second each band is looked at. What waits in it at that moment has left when the band has sent as many bytes more, so
//! the band is looked at again after 1, 2, 4 ms and so on, until it has. That is what a packet would have waited that came at
//! that moment to a first-in first-out band; where the queue of a band is fair among flows, a packet of a short flow waits less. A band
//! that sends and holds nothing makes nobody wait; one that does neither is not counted. No packet is touched for this, and nothing is asked
//! of the programs.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Meters;
use crate::{
    instance::Instance,
    qdisc::{self, BandStats},
    uplink,
};

/// Time between two looks; half of it to one and a half, so that no rhythm of the traffic is met in step.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time to the first look at a queue that is to drain, which then doubles.
const FIRST_STEP: Duration = Duration::from_millis(1);
const LONGEST_STEP: Duration = Duration::from_millis(256);
/// A band that has not drained by then counts as having taken so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A device with bands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Device {
    name: String,
    ifindex: u32,
}

/// Measures until `stop`.
pub(super) async fn watch(instance: Instance, meters: Meters, stop: CancellationToken) {
    let mut watch = Watch::default();
    let mut next_look = Instant::now();
    let mut step = FIRST_STEP;
    loop {
        let now = Instant::now();
        let until = match watch.waits.is_empty() {
            true => next_look,
            false => next_look.min(now + step),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(until.into()) => {}
        }
        let is_look = Instant::now() >= next_look;
        let devices = if is_look {
            next_look = Instant::now() + LOOK_EVERY.mul_f64(rand::rng().random_range(0.5..1.5));
            step = FIRST_STEP;
            devices(&instance)
        } else {
            step = (step * 2).min(LONGEST_STEP);
            watch.devices()
        };
        for device in devices {
            match qdisc::stats(device.ifindex).await {
                Ok(bands) => watch.see(&device, &bands, (Instant::now(), is_look), &meters),
                Err(error) => {
                    debug!(%error, interface = device.name, "no look at the bands");
                    watch.forget(&device);
                }
            }
        }
    }
}

fn devices(instance: &Instance) -> Vec<Device> {
    let records = instance.records().unwrap_or_else(|error| {
        debug!(%error, "no look at the bands");
        Vec::new()
    });
    let present = records.into_iter().filter(uplink::is_present);
    present
        .flat_map(|record| {
            let downlink = record.downlink.map(|downlink| Device {
                name: downlink.device,
                ifindex: downlink.ifindex,
            });
            let uplink = Device {
                name: record.name,
                ifindex: record.ifindex,
            };
            [Some(uplink), downlink].into_iter().flatten()
        })
        .collect()
}

/// What is known of the bands, and what is waited for.
#[derive(Debug, Default)]
struct Watch {
    /// Bytes sent at the latest look.
    sent: HashMap<(Device, u8), u64>,
    waits: Vec<Wait>,
}

/// A queue that is to drain.
#[derive(Debug)]
struct Wait {
    device: Device,
    band: u8,
    began: Instant,
    /// Bytes sent when all that stood there has left.
    goal_bytes: u64,
    /// The latest look before this.
    before: (Instant, u64),
}

/// What a look says of a queue that is to drain.
#[derive(Debug, PartialEq, Eq)]
enum Drained {
    NotYet,
    After(Duration),
    /// The band was made anew.
    Lost,
}

impl Watch {
    fn devices(&self) -> Vec<Device> {
        let mut devices: Vec<Device> = Vec::new();
        for wait in &self.waits {
            if !devices.contains(&wait.device) {
                devices.push(wait.device.clone());
            }
        }
        devices
    }

    fn forget(&mut self, device: &Device) {
        self.waits.retain(|wait| wait.device != *device);
        self.sent.retain(|(of, _), _| of != device);
    }

    fn see(
        &mut self,
        device: &Device,
        bands: &[BandStats],
        (now, is_look): (Instant, bool),
        meters: &Meters,
    ) {
        self.waits.retain_mut(|wait| {
            if wait.device != *device {
                return true;
            }
            let sent = bands.iter().find(|it| it.band == wait.band);
            match sent.map_or(Drained::Lost, |it| wait.look(now, it.bytes)) {
                Drained::NotYet => return true,
                Drained::After(wait_time) => meters.waited(&device.name, wait.band, wait_time),
                Drained::Lost => {}
            }
            false
        });
        if !is_look {
            return;
        }
        for stats in bands {
            let of = (device.clone(), stats.band);
            let before = self.sent.insert(of, stats.bytes);
            if stats.backlog_bytes > 0 {
                self.waits.push(Wait {
                    device: device.clone(),
                    band: stats.band,
                    began: now,
                    goal_bytes: stats.bytes + stats.backlog_bytes,
                    before: (now, stats.bytes),
                });
            } else if before.is_some_and(|before| stats.bytes > before) {
                meters.waited(&device.name, stats.band, Duration::ZERO);
            }
        }
    }
}

impl Wait {
    /// Takes in how much the band has sent by now. Between two looks it is taken to have sent evenly.
    fn look(&mut self, now: Instant, sent_bytes: u64) -> Drained {
        let (then, sent_before) = self.before;
        let Some(fresh) = sent_bytes.checked_sub(sent_before) else {
            return Drained::Lost;
        };
        if sent_bytes >= self.goal_bytes {
            let needed = self.goal_bytes.saturating_sub(sent_before);
            let share = needed as f64 / fresh.max(1) as f64;
            let at = then + now.duration_since(then).mul_f64(share);
            return Drained::After(at.duration_since(self.began));
        }
        let so_far = now.duration_since(self.began);
        if so_far >= PATIENCE {
            return Drained::After(so_far);
        }
        self.before = (now, sent_bytes);
        Drained::NotYet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(began: Instant) -> Wait {
        Wait {
            device: Device {
                name: "eth0".to_owned(),
                ifindex: 1,
            },
            band: 2,
            began,
            goal_bytes: 11_000,
            before: (began, 1_000),
        }
    }

    #[test]
    fn a_queue_has_drained_between_two_looks() {
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let mut wait = wait(began);
        assert_eq!(wait.look(after(1), 2_000), Drained::NotYet);
        assert_eq!(wait.look(after(3), 7_000), Drained::NotYet);
        // 4000 of the 8000 bytes of these 4 ms.
        let Drained::After(took) = wait.look(after(7), 15_000) else {
            panic!("{wait:?}");
        };
        assert!(
            took.abs_diff(Duration::from_millis(5)) < Duration::from_micros(1),
            "{took:?}"
        );
    }

    #[test]
    fn who_never_drains_and_who_is_made_anew() {
        let began = Instant::now();
        let mut stuck = wait(began);
        assert_eq!(
            stuck.look(began + PATIENCE, 1_000),
            Drained::After(PATIENCE)
        );
        assert_eq!(
            wait(began).look(began + FIRST_STEP, 10),
            Drained::Lost,
            "counters that fall"
        );
    }

    #[test]
    fn bands_in_use_are_counted_and_others_are_not() {
        let (meters, mut watch) = (Meters::default(), Watch::default());
        let device = wait(Instant::now()).device;
        let stats = |band, bytes, backlog_bytes| BandStats {
            band,
            packets: 0,
            bytes,
            drops: 0,
            backlog_packets: 0,
            backlog_bytes,
        };
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let first = [stats(0, 100, 0), stats(1, 50, 0), stats(2, 10, 500)];
        watch.see(&device, &first, (at(0), true), &meters);
        let later = [stats(0, 900, 0), stats(1, 50, 0), stats(2, 510, 0)];
        watch.see(&device, &later, (at(2), false), &meters);
        assert!(watch.devices().is_empty());
        watch.see(&device, &later, (at(1000), true), &meters);
        let mut registry = prometheus_client::registry::Registry::default();
        meters.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for (band, count) in [(0, 1), (2, 1)] {
            let line =
                format!("treeline_band_delay_seconds_count{{interface=\"eth0\",band=\"{band}\"}}");
            // The third look finds band 2 in use once more, and empty.
            let count = count + u64::from(band == 2);
            assert!(text.contains(&format!("{line} {count}")), "{text}");
        }
        assert!(!text.contains("band=\"1\""), "{text}");
    }
}
