//! What is wanted of an interface's ingress, and how it is written.

pub mod downlink;
pub(crate) mod setup;

use std::{fs, path::Path, str::FromStr};

use aya::util::KernelVersion;
use scheduler_common::{class::BANDS, ingress::interface_flags};
use serde::{Deserialize, Serialize};

pub use self::downlink::{Downlink, DownlinkError};
use crate::{
    instance::IngressHook,
    qdisc::{self, QdiscError, format_rate, parse_rate},
};

/// A burst that is not given lasts so long at the rate …
const DEFAULT_BURST_MS: u64 = 20;
/// … but holds at least so many bytes.
const MIN_BURST_BYTES: u64 = 15_000;

/// What to do with packets that come in; by default they are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Rate to shape to, bits per second.
    pub rate_bps: Option<u64>,
    /// CPUs by band.
    pub steer: Option<Steering>,
    /// Hand the band on to TC programs.
    pub metadata: bool,
    /// Rate limits of bands.
    pub police: Vec<Limit>,
}

impl Ingress {
    /// Bits of [`interface_flags`] for what the ingress program is to do.
    pub fn flags(&self) -> u32 {
        let Self {
            rate_bps: _,
            steer,
            metadata,
            police,
        } = self;
        [
            (steer.is_some(), interface_flags::STEER),
            (*metadata, interface_flags::METADATA),
            (!police.is_empty(), interface_flags::POLICE),
        ]
        .into_iter()
        .filter_map(|(wanted, flag)| wanted.then_some(flag))
        .fold(0, |flags, flag| flags | flag)
    }
}

/// What the programs must know of how frames begin on an interface, as bits of [`interface_flags`].
///
/// # Errors
/// If the kernel can't be asked.
pub async fn frame_flags(ifindex: u32) -> Result<u32, QdiscError> {
    let network_frames = qdisc::device(ifindex).await?.network_frames;
    Ok(if network_frames {
        interface_flags::NETWORK_FRAMES
    } else {
        0
    })
}

/// Why packets can't be handed to other CPUs on an interface with this hook; `None` if they can.
///
/// # Errors
/// If the kernel can't be asked.
pub async fn no_steering(
    ifindex: u32,
    hook: Option<IngressHook>,
) -> Result<Option<&'static str>, QdiscError> {
    Ok(if hook != Some(IngressHook::Xdp) {
        // A kernel that copies the packet for XDP forgets the length of its Ethernet header (6.18
        // `net/core/skbuff.c`, `skb_pp_cow_data`), by which the redirect finds the IP header.
        Some("its driver has no XDP, and the kernel's own loses packets that change CPUs")
    } else {
        let device = qdisc::device(ifindex).await?;
        if device.is_veth {
            Some(
                "a packet in a veth pair has no checksum yet, and would be refused on the other CPU",
            )
        } else if device.virtio_name.as_deref().is_some_and(loses_pages) {
            Some(
                "its driver and this kernel damage memory when packets change CPUs; give the virtual \
                 machine a network card with mrg_rxbuf=on",
            )
        } else {
            None
        }
    })
}

/// Whether a virtio card's driver hands pages out again in which redirected packets still lie.
///
/// So does Debian's 7.3.4 where the card does not merge receive buffers, seen as damaged data and page tables;
/// 6.12 does not. Between them the driver changed to page pools, which was proposed in January 2026.
fn loses_pages(virtio_name: &str) -> bool {
    let features = Path::new("/sys/bus/virtio/devices")
        .join(virtio_name)
        .join("features");
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(7, 0, 0))
        && fs::read_to_string(features).is_ok_and(|features| !merges_buffers(&features))
}

/// Whether feature 15 is negotiated, `VIRTIO_NET_F_MRG_RXBUF` (virtio 1.2, 5.1.3); a digit a feature.
fn merges_buffers(features: &str) -> bool {
    features.as_bytes().get(15) == Some(&b'1')
}

/// The CPUs of urgent and of bulk bands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// For bands below [`scheduler_common::ingress::FIRST_BULK_BAND`].
    pub urgent: Vec<u32>,
    /// For the others.
    pub bulk: Vec<u32>,
}

/// The rate limit of one band.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The band.
    pub band: u8,
    /// Bits per second.
    pub rate_bps: u64,
    /// Bytes that may come at once.
    pub burst_bytes: u64,
}

impl FromStr for Steering {
    type Err = String;

    /// Reads `urgent=0,bulk=1-3`; a list of CPUs is written `0-1+4`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut urgent, mut bulk) = (None, None);
        for part in text.split(',') {
            let group = match part.split_once('=') {
                Some(("urgent", cpus)) => urgent.replace(parse_cpus(cpus)?),
                Some(("bulk", cpus)) => bulk.replace(parse_cpus(cpus)?),
                _ => return Err(format!("`{part}` is neither urgent=CPUS nor bulk=CPUS")),
            };
            if group.is_some() {
                return Err(format!("`{part}` names its group a second time"));
            }
        }
        match (urgent, bulk) {
            (Some(urgent), Some(bulk)) => Ok(Self { urgent, bulk }),
            _ => Err("both groups are needed: urgent=0,bulk=1-3".to_owned()),
        }
    }
}

fn parse_cpus(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("`{text}` is no list of CPUs; write for example 0, 1-3 or 0+4-7");
    let mut cpus = Vec::new();
    for range in text.split('+') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u32>().map_err(|_no_number| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= 4096 {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

impl FromStr for Limit {
    type Err = String;

    /// Reads `7=20mbit` or `7=20mbit:100000`, where the burst is in bytes.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no limit; write BAND=RATE or BAND=RATE:BURST with a burst in bytes, \
                 for example 7=20mbit or 7=20mbit:100000"
            )
        };
        let (band, limit) = text.split_once('=').ok_or_else(wrong)?;
        let band = band.parse::<u8>().map_err(|_no_number| wrong())?;
        if usize::from(band) >= BANDS {
            return Err(format!("bands are 0 to {}, not {band}", BANDS - 1));
        }
        let (rate, burst) = match limit.split_once(':') {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (limit, None),
        };
        let rate_bps = parse_rate(rate).map_err(|error| error.to_string())?;
        let burst_bytes = match burst {
            Some(burst) => burst.parse().map_err(|_no_number| wrong())?,
            None => (rate_bps / 8_000 * DEFAULT_BURST_MS).max(MIN_BURST_BYTES),
        };
        Ok(Self {
            band,
            rate_bps,
            burst_bytes,
        })
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = format_rate(self.rate_bps);
        write!(f, "{}={rate}:{}", self.band, self.burst_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_buffers_are_a_virtio_feature() {
        let without = "1100010000000000111000001110000000000000000000000000000000000000\n";
        let with = without.replacen("10000000000111", "10000000001111", 1);
        assert!(!merges_buffers(without) && merges_buffers(&with) && !merges_buffers(""));
    }

    #[test]
    fn groups_of_cpus_are_read() {
        let steering: Steering = "urgent=0,bulk=1-3+6".parse().unwrap();
        assert_eq!(steering.urgent, [0]);
        assert_eq!(steering.bulk, [1, 2, 3, 6]);
        let steering: Steering = "bulk=1+0+1,urgent=0".parse().unwrap();
        assert_eq!(steering.bulk, [0, 1]);
        for (text, says) in [
            ("urgent=0", "both groups"),
            ("urgent=0,bulk=", "no list"),
            ("urgent=0,bulk=3-1", "no list"),
            ("urgent=0,slow=1", "slow=1"),
            ("urgent=0,urgent=1,bulk=1", "second time"),
            ("urgent=0,bulk=99999", "no list"),
        ] {
            let error = text.parse::<Steering>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn limits_are_read_and_written_alike() {
        let limit: Limit = "7=20mbit".parse().unwrap();
        assert_eq!(limit.to_string(), "7=20mbit:50000");
        assert_eq!(limit.to_string().parse::<Limit>(), Ok(limit));
        let small: Limit = "0=100kbit".parse().unwrap();
        assert_eq!(small.burst_bytes, MIN_BURST_BYTES);
        for (text, says) in [
            ("8=1mbit", "0 to 7"),
            ("7", "BAND=RATE"),
            ("7=fast", "100mbit"),
            ("7=1mbit:x", "bytes"),
        ] {
            let error = text.parse::<Limit>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
