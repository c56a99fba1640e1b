//! The beds: a sender's own egress, and a router between two hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::netns::{
    ACCESS, CLIENT_MAC, CLIENT_V4, CLIENT_V6, CONGESTION_CONTROL, End, Namespace, SERVER_MAC,
    SERVER_V4, SERVER_V6, UPLINK, join,
};

/// The server's interface where a router stands between it and the client.
const LAN: &str = "lan";
/// The router's interface towards the server.
const INSIDE: &str = "inside";
const INSIDE_MAC: &str = "02:00:00:00:99:03";
const UPLINK_MAC: &str = "02:00:00:00:99:04";
const INSIDE_V4: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const UPLINK_V4: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const INSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 1);
const UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x97, 0, 0, 0, 0, 0, 1);

/// Networks (/24) that the client has an address in, beside its own.
pub const FAR_NETWORKS: u8 = 8;

/// The client's address in one of [`FAR_NETWORKS`], counted from nought.
#[must_use]
pub const fn far_address(network: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 96, network % FAR_NETWORKS, 2))
}

/// A client and a server; the link from the server's side to the client is the one to shape.
#[derive(Debug)]
pub struct Bed {
    /// Where requests come from.
    pub client: Namespace,
    /// Where replies come from.
    pub server: Namespace,
    /// What stands between them on a router bed.
    pub router: Option<Namespace>,
}

impl Bed {
    /// Makes the bed of the sender's own egress: two namespaces, one veth pair.
    ///
    /// # Errors
    ///
    /// Without root or iproute2.
    pub fn host() -> Result<Self> {
        let bed = Self {
            client: Namespace::new("client")?,
            server: Namespace::new("server")?,
            router: None,
        };
        join(
            End {
                namespace: &bed.server,
                interface: UPLINK,
                mac: SERVER_MAC,
                addresses: [SERVER_V4, SERVER_V6],
            },
            bed.client_end(),
        )?;
        bed.add_far_networks()?;
        Ok(bed)
    }

    /// Makes the bed of a router: three namespaces, the bottleneck at the middle one's egress.
    ///
    /// Every packet crosses it alone: the server makes no super-packets.
    ///
    /// # Errors
    ///
    /// Without root or iproute2.
    pub fn router() -> Result<Self> {
        let router = Namespace::new("router")?;
        let bed = Self {
            client: Namespace::new("client")?,
            server: Namespace::new("server")?,
            router: None,
        };
        let server_end = End {
            namespace: &bed.server,
            interface: LAN,
            mac: SERVER_MAC,
            addresses: [SERVER_V4, SERVER_V6],
        };
        let router_end = |interface, mac, addresses| End {
            namespace: &router,
            interface,
            mac,
            addresses,
        };
        join(
            server_end,
            router_end(INSIDE, INSIDE_MAC, [INSIDE_V4.into(), INSIDE_V6.into()]),
        )?;
        join(
            router_end(UPLINK, UPLINK_MAC, [UPLINK_V4.into(), UPLINK_V6.into()]),
            bed.client_end(),
        )?;
        router.write_sysctl("net/ipv4/ip_forward", "1")?;
        for (end, interface, gateway, far) in [
            (&bed.server, LAN, INSIDE_V4, CLIENT_V4),
            (&bed.client, ACCESS, UPLINK_V4, SERVER_V4),
        ] {
            end.ip(&format!(
                "route replace {far} via {gateway} dev {interface} congctl {CONGESTION_CONTROL}"
            ))?;
        }
        bed.server
            .ip(&format!("link set dev {LAN} gso_max_segs 1"))?;
        let bed = Self {
            router: Some(router),
            ..bed
        };
        bed.add_far_networks()?;
        Ok(bed)
    }

    /// The namespace whose [`UPLINK`] is the link under test.
    #[must_use]
    pub const fn shaped(&self) -> &Namespace {
        match &self.router {
            Some(router) => router,
            None => &self.server,
        }
    }

    /// Bounds the size of what the server's stack hands to the qdisc at once.
    ///
    /// With full-sized super-packets a 200 Mbit/s link is blocked for 2.6 ms at a time, whatever
    /// the scheduler decides. On a router bed there are none.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn limit_super_packets(&self, bytes: u32) -> Result<()> {
        if self.router.is_none() {
            self.server
                .ip(&format!("link set dev {UPLINK} gso_max_size {bytes}"))?;
        }
        Ok(())
    }

    const fn client_end(&self) -> End<'_> {
        End {
            namespace: &self.client,
            interface: ACCESS,
            mac: CLIENT_MAC,
            addresses: [CLIENT_V4, CLIENT_V6],
        }
    }

    /// Gives the client an address in each of the far networks.
    fn add_far_networks(&self) -> Result<()> {
        for network in 0..FAR_NETWORKS {
            let address = far_address(network);
            self.client
                .ip(&format!("addr add dev {ACCESS} {address}/32"))?;
            // Over the client's first address, whose neighbour entry is fixed.
            let uplink = self.shaped();
            uplink.ip(&format!(
                "route add {address} via {CLIENT_V4} dev {UPLINK} onlink congctl {CONGESTION_CONTROL}"
            ))?;
            if self.router.is_some() {
                self.server.ip(&format!(
                    "route add {address} via {INSIDE_V4} dev {LAN} congctl {CONGESTION_CONTROL}"
                ))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener},
    };

    use super::*;

    /// Sends a byte from the server to a socket of the client that is bound to `from`.
    fn reaches(bed: &Bed, from: IpAddr) {
        let listener = bed
            .server
            .enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))
            .unwrap();
        let server = listener.local_addr().unwrap();
        let mut client = bed
            .client
            .enter(|| {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                socket.bind(&SocketAddr::new(from, 0).into())?;
                socket.connect(&server.into())?;
                Ok(std::net::TcpStream::from(socket))
            })
            .unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), from);
        let control = socket2::SockRef::from(&accepted).tcp_congestion().unwrap();
        assert!(control.starts_with(CONGESTION_CONTROL.as_bytes()));
        accepted.write_all(b"x").unwrap();
        drop(accepted);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"x");
    }

    #[test]
    fn every_address_of_the_client_is_reached_on_both_beds() {
        for bed in [Bed::host().unwrap(), Bed::router().unwrap()] {
            reaches(&bed, CLIENT_V4);
            for network in 0..FAR_NETWORKS {
                reaches(&bed, far_address(network));
            }
            let links = bed.shaped().ip("-br link").unwrap();
            assert!(links.contains(UPLINK), "{links}");
        }
    }
}
