//! Which packets of a capture leave, and which come in.

use std::{net::IpAddr, str::FromStr};

use scheduler_common::sample::Hook;
use scheduler_ebpf::parse::Headers;

/// A network, such as `10.0.0.0/8`, `fd00::/8` or a lone address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    version: u8,
    words: [u32; 4],
    bits: u32,
}

/// What is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: write for example 192.168.0.0/16 or fd00::/8")]
pub struct PrefixError(String);

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let wrong = || PrefixError(text.to_owned());
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits.parse::<u32>().map_err(|_error| wrong())?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_error| wrong())?;
        let (version, words, all) = match addr {
            IpAddr::V4(addr) => (4, [addr.to_bits(), 0, 0, 0], 32),
            IpAddr::V6(addr) => {
                let bits = addr.to_bits();
                let word = |index: u32| (bits >> (96 - 32 * index)) as u32;
                (6, [word(0), word(1), word(2), word(3)], 128)
            }
        };
        let bits = bits.unwrap_or(all);
        if bits > all {
            return Err(wrong());
        }
        Ok(Self {
            version,
            words,
            bits,
        })
    }
}

impl Prefix {
    fn holds(&self, version: u8, addr: &[u32; 4]) -> bool {
        let same = |index: u32| {
            let bits = self.bits.saturating_sub(32 * index).min(32);
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (self.words[index as usize] ^ addr[index as usize]) & mask == 0
        };
        self.version == version && (0..4).all(same)
    }
}

/// The hook that sees the packet; `None` if neither end is local.
pub(super) fn hook(local: &[Prefix], headers: &Headers) -> Option<Hook> {
    let is_local = |addr| local.iter().any(|of| of.holds(headers.ip_version, addr));
    if is_local(&headers.src_addr) {
        Some(Hook::Egress)
    } else if is_local(&headers.dst_addr) {
        Some(Hook::Ingress)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(src: [u32; 4], dst: [u32; 4], ip_version: u8) -> Headers {
        Headers {
            src_addr: src,
            dst_addr: dst,
            ip_version,
            ..Headers::default()
        }
    }

    #[test]
    fn packets_from_local_networks_leave_and_those_to_them_come_in() {
        let local =
            ["10.0.0.0/8", "192.168.3.7", "fd00:1:2::/47"].map(|text| text.parse().unwrap());
        let v4 = |a: u32, b: u32| hook(&local, &packet([a, 0, 0, 0], [b, 0, 0, 0], 4));
        assert_eq!(v4(0x0aff_ffff, 0x0808_0808), Some(Hook::Egress));
        assert_eq!(v4(0x0808_0808, 0x0a00_0001), Some(Hook::Ingress));
        assert_eq!(v4(0x0808_0808, 0x0b00_0001), None);
        assert_eq!(v4(0xc0a8_0307, 0x0808_0808), Some(Hook::Egress));
        assert_eq!(v4(0xc0a8_0308, 0x0808_0808), None);
        assert_eq!(v4(0x0a00_0001, 0x0a00_0002), Some(Hook::Egress));
        let v6 = |a: u32, b: u32| hook(&local, &packet([a, b, 9, 9], [1, 1, 1, 1], 6));
        assert_eq!(v6(0xfd00_0001, 0x0003_ffff), Some(Hook::Egress));
        assert_eq!(v6(0xfd00_0001, 0x0004_0000), None);
        let all: [Prefix; 1] = ["0.0.0.0/0".parse().unwrap()];
        assert_eq!(hook(&all, &packet([1; 4], [2; 4], 6)), None);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "example.net",
            "10.0.0.0/x",
            "/8",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
