//! One server with one or several links, each with its own client and some transmit queues.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use bed::netns::Namespace;

const PORT: u16 = 7100;

/// A link of the server's and who is at its other end.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Namespace,
    pub(crate) interface: String,
    pub(crate) server: SocketAddr,
}

/// The server and its links.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) server: Namespace,
    pub(crate) links: Vec<Link>,
}

impl Wires {
    /// Joins `links` clients to one server by veth pairs with so many transmit queues.
    pub(crate) fn lay(links: u8, queues: u32, gso_max_bytes: u32) -> Result<Self> {
        let server = Namespace::new("server")?;
        let links = (0..links)
            .map(|number| link(&server, number, queues, gso_max_bytes))
            .collect::<Result<_>>()?;
        Ok(Self { server, links })
    }
}

fn link(server: &Namespace, number: u8, queues: u32, gso_max_bytes: u32) -> Result<Link> {
    let client = Namespace::new("client")?;
    let interface = format!("up{number}");
    server.ip(&format!(
        "link add {interface} numtxqueues {queues} numrxqueues {queues} type veth peer name access \
         numtxqueues {queues} numrxqueues {queues} netns {}",
        client.name()
    ))?;
    let address = |host| IpAddr::V4(Ipv4Addr::new(10, 98, number, host));
    for (namespace, name, near, far) in [
        (server, interface.as_str(), address(1), address(2)),
        (&client, "access", address(2), address(1)),
    ] {
        namespace.ip(&format!("addr add dev {name} {near}/24"))?;
        namespace.ip(&format!("link set {name} up"))?;
        // As between the ends of the other beds.
        namespace.ip(&format!("route add {far} dev {name} congctl cubic"))?;
        namespace.write_sysctl("net/core/somaxconn", "4096")?;
    }
    server.ip(&format!(
        "link set dev {interface} gso_max_size {gso_max_bytes}"
    ))?;
    Ok(Link {
        client,
        interface,
        server: SocketAddr::new(address(1), PORT),
    })
}
