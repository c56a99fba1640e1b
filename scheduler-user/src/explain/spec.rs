//! A flow as `ss` and `conntrack` print it.

use std::{
    fmt::{self, Display},
    net::{IpAddr, SocketAddr},
};

use scheduler_ebpf::parse::{Headers, ICMP, ICMPV6, TCP, UDP};

use super::ExplainError;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// IP protocol number.
    pub protocol: u8,
    /// One end; without ports the port is 0.
    pub from: SocketAddr,
    /// The other end.
    pub to: SocketAddr,
}

impl FlowSpec {
    /// Reads the words of a line: a protocol and two ends, or conntrack's `src=`, `dst=`, `sport=`, `dport=`.
    ///
    /// Of a line with both directions the first counts; words that say nothing of this are passed over, so lines may be
    /// pasted whole. Without a protocol it is TCP, as `ss -tn` prints none.
    ///
    /// # Errors
    /// If there are not two ends of one address family.
    pub fn parse(line: &str) -> Result<Self, ExplainError> {
        let mut protocol = None;
        let mut ends = Vec::new();
        let mut named = Named::default();
        for word in line.split_whitespace() {
            if let Some(number) = protocol_of(word) {
                protocol.get_or_insert(number);
            } else if let Some((key, value)) = word.split_once('=') {
                named.take(key, value);
            } else if let Some(end) = end(word) {
                ends.push(end);
            }
        }
        ends.extend(named.ends());
        let [from, to, ..] = ends.as_slice() else {
            return Err(ExplainError::NoFlow(line.to_owned()));
        };
        if from.is_ipv4() != to.is_ipv4() {
            return Err(ExplainError::NoFlow(line.to_owned()));
        }
        let protocol = protocol.unwrap_or(TCP);
        let ports = from.port() != 0 && to.port() != 0;
        if [TCP, UDP].contains(&protocol) && !ports {
            return Err(ExplainError::NoFlow(line.to_owned()));
        }
        Ok(Self {
            protocol,
            from: *from,
            to: *to,
        })
    }

    /// Headers of a packet from `from` to `to`, as far as they tell the flow.
    pub fn headers(&self) -> Headers {
        Headers {
            src_addr: words(self.from.ip()),
            dst_addr: words(self.to.ip()),
            src_port: self.from.port(),
            dst_port: self.to.port(),
            protocol: self.protocol,
            ip_version: if self.from.is_ipv4() { 4 } else { 6 },
            ..Headers::default()
        }
    }
}

impl Display for FlowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            protocol_name(self.protocol),
            self.from,
            self.to
        )
    }
}

/// What conntrack says by name, the first time each.
#[derive(Default)]
struct Named {
    addresses: [Option<IpAddr>; 2],
    ports: [Option<u16>; 2],
}

impl Named {
    fn take(&mut self, key: &str, value: &str) {
        let [src, dst] = &mut self.addresses;
        let [sport, dport] = &mut self.ports;
        let (address, port) = match key {
            "src" => (Some(src), None),
            "dst" => (Some(dst), None),
            // The identifier of an echo request stands for its source port.
            "sport" | "id" => (None, Some(sport)),
            "dport" => (None, Some(dport)),
            _ => return,
        };
        if let Some(address) = address {
            *address = address.or_else(|| value.parse().ok());
        }
        if let Some(port) = port {
            *port = port.or_else(|| value.parse().ok());
        }
    }

    fn ends(&self) -> Vec<SocketAddr> {
        let ends = self.addresses.iter().zip(self.ports);
        ends.filter_map(|(address, port)| Some(SocketAddr::new((*address)?, port.unwrap_or(0))))
            .collect()
    }
}

/// `10.0.0.1:80`, `[::1]:80`, `[::1%eth0]:80`, or an address without port.
fn end(word: &str) -> Option<SocketAddr> {
    let word = match (word.find('%'), word.rfind("]:").or_else(|| word.rfind(':'))) {
        // The zone of an address says where it holds, not what it is.
        (Some(zone), Some(port)) if zone < port => {
            std::borrow::Cow::from(format!("{}{}", &word[..zone], &word[port..]))
        }
        _ => word.into(),
    };
    let end = word
        .parse::<SocketAddr>()
        .or_else(|_| {
            word.parse::<IpAddr>()
                .map(|address| SocketAddr::new(address, 0))
        })
        .ok()?;
    // Of a socket for both families; on the wire it is IPv4.
    Some(SocketAddr::new(end.ip().to_canonical(), end.port()))
}

fn protocol_of(word: &str) -> Option<u8> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" | "tcp6" => Some(TCP),
        "udp" | "udp6" => Some(UDP),
        "icmp" => Some(ICMP),
        "icmpv6" | "ipv6-icmp" => Some(ICMPV6),
        _ => None,
    }
}

pub(super) fn protocol_name(protocol: u8) -> String {
    match protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        ICMP => "icmp".to_owned(),
        ICMPV6 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        FlowSpec::parse(line).unwrap().to_string()
    }

    #[test]
    fn lines_of_others_may_be_pasted() {
        let plain = "tcp 10.0.0.1:5000 10.0.0.2:80";
        assert_eq!(read(plain), plain);
        assert_eq!(read("ESTAB 0 36 10.0.0.1:5000 10.0.0.2:80"), plain);
        assert_eq!(
            read("tcp   ESTAB 0      0      [::ffff:10.0.0.1]:5000 [::ffff:10.0.0.2]:80"),
            plain
        );
        assert_eq!(
            read(
                "udp 17 29 src=10.0.0.1 dst=10.0.0.2 sport=5000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 \
                 dport=5000 [ASSURED] mark=0 use=1"
            ),
            "udp 10.0.0.1:5000 10.0.0.2:53"
        );
        assert_eq!(
            read("udp [fe80::1%eth0]:546 [fe80::2]:547"),
            "udp [fe80::1]:546 [fe80::2]:547"
        );
        assert_eq!(
            read("icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=77"),
            "icmp 10.0.0.1:77 10.0.0.2:0"
        );
    }

    #[test]
    fn what_is_no_flow_says_what_one_is() {
        for bad in [
            "",
            "tcp",
            "tcp 10.0.0.1:5000",
            "tcp 10.0.0.1 10.0.0.2",
            "udp 10.0.0.1:1 [::1]:2",
        ] {
            let error = FlowSpec::parse(bad).unwrap_err().to_string();
            assert!(error.contains("tcp 10.0.0.1:5000 10.0.0.2:80"), "{error}");
        }
    }

    #[test]
    fn headers_hold_addresses_as_the_programs_do() {
        let headers = FlowSpec::parse("udp [2001:db8::1]:1 [2001:db8::2]:2")
            .unwrap()
            .headers();
        assert_eq!(headers.src_addr, [0x2001_0db8, 0, 0, 1]);
        assert_eq!((headers.dst_port, headers.ip_version), (2, 6));
        let headers = FlowSpec::parse("10.0.0.1:1 10.0.0.2:2").unwrap().headers();
        assert_eq!(headers.dst_addr, [0x0a00_0002, 0, 0, 0]);
    }
}
