//! What a network card does by itself: offloads, XDP, queues.
//!
//! Asked over generic netlink, the kernel's families `ethtool` and `netdev` (6.18
//! `Documentation/netlink/specs/{ethtool,netdev}.yaml`). One request and one answer each, so a plain socket does.

use std::io;

use futures::TryStreamExt as _;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, Nla as _};
use netlink_packet_route::link::{LinkAttribute, LinkXdp};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::libc;

use super::{
    QdiscError,
    netlink::{emit_attributes, find, parse_attributes},
};

const HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;

const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: the driver runs programs and knows pass, drop, abort and transmit.
const XDP_BASIC: u64 = 1;

const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// What the kernel says of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Transmit queues.
    pub tx_queues: u32,
    /// Bytes that the stack hands to the qdisc as one packet at most.
    pub gso_max_bytes: u32,
    /// Kernel's id of an XDP program that is attached, whoever did it.
    pub xdp_program: Option<u32>,
    /// Whether the driver itself runs XDP programs; absent where the kernel does not say (before 6.3).
    pub native_xdp: Option<bool>,
    /// Names of the offloads that are on, as `ethtool -k` has them in the kernel's words; absent where it does not say.
    pub offloads: Option<Vec<String>>,
}

impl Card {
    /// Whether an offload is on; absent where the kernel does not say.
    pub fn has(&self, offload: &str) -> Option<bool> {
        let on = self.offloads.as_ref()?;
        Some(on.iter().any(|name| name == offload))
    }
}

/// What the kernel says of the interface with this index.
///
/// # Errors
/// If there is no such interface, or the kernel can't be asked. What an older kernel does not say is absent.
pub async fn card(ifindex: u32) -> Result<Card, QdiscError> {
    let op = "look at the interface";
    let (connection, handle, _unsolicited) =
        rtnetlink::new_connection().map_err(|source| QdiscError::Netlink { op, source })?;
    let task = tokio::spawn(connection);
    let mut links = handle.link().get().match_index(ifindex).execute();
    let link = links.try_next().await;
    task.abort();
    let link = link
        .ok()
        .flatten()
        .ok_or(QdiscError::NoSuchInterface { ifindex })?;
    let mut card = Card {
        native_xdp: native_xdp(ifindex).ok().flatten(),
        offloads: offloads(ifindex).ok(),
        ..Card::default()
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::NumTxQueues(count) => card.tx_queues = count,
            LinkAttribute::GsoMaxSize(bytes) => card.gso_max_bytes = bytes,
            LinkAttribute::Xdp(parts) => {
                card.xdp_program = parts.iter().find_map(|part| match part {
                    LinkXdp::ProgId(id) if *id != 0 => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Ok(card)
}

fn native_xdp(ifindex: u32) -> io::Result<Option<bool>> {
    let which = DefaultNla::new(NETDEV_A_DEV_IFINDEX, ifindex.to_ne_bytes().to_vec());
    let answer = Generic::open("netdev")?.ask(NETDEV_CMD_DEV_GET, &[which])?;
    let features = find(&answer, NETDEV_A_DEV_XDP_FEATURES);
    Ok(features
        .and_then(|raw| Some(u64::from_ne_bytes(raw.try_into().ok()?)))
        .map(|features| features & XDP_BASIC != 0))
}

fn offloads(ifindex: u32) -> io::Result<Vec<String>> {
    let which = DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, ifindex.to_ne_bytes().to_vec());
    let header = DefaultNla::new(ETHTOOL_A_HEADER | NLA_F_NESTED, emit_attributes(&[which]));
    let answer = Generic::open("ethtool")?.ask(ETHTOOL_MSG_FEATURES_GET, &[header])?;
    let inside = |list: &[DefaultNla], kind| {
        find(list, kind)
            .and_then(|raw| parse_attributes(&raw).ok())
            .unwrap_or_default()
    };
    let active = inside(&answer, ETHTOOL_A_FEATURES_ACTIVE);
    let bits = inside(&active, ETHTOOL_A_BITSET_BITS);
    Ok(bits.iter().filter_map(bit_name).collect())
}

/// Name of a bit that is set. In a list without a mask all bits are, and else those with the flag.
fn bit_name(bit: &DefaultNla) -> Option<String> {
    let mut raw = vec![0; bit.value_len()];
    bit.emit_value(&mut raw);
    let parts = parse_attributes(&raw).ok()?;
    let name = find(&parts, ETHTOOL_A_BITSET_BIT_NAME)?;
    let without_mask = parts
        .iter()
        .all(|part| part.kind() <= ETHTOOL_A_BITSET_BIT_NAME);
    let set = without_mask || find(&parts, ETHTOOL_A_BITSET_BIT_VALUE).is_some();
    let name = String::from_utf8_lossy(&name);
    set.then(|| name.trim_end_matches('\0').to_owned())
}

/// A family of generic netlink, in the network namespace of the thread that opened it.
struct Generic {
    socket: Socket,
    family: u16,
}

impl Generic {
    fn open(name: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let control = Self {
            socket,
            family: CONTROL,
        };
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let which = DefaultNla::new(CTRL_ATTR_FAMILY_NAME, text);
        let answer = control.ask(CTRL_CMD_GETFAMILY, &[which])?;
        let family = find(&answer, CTRL_ATTR_FAMILY_ID)
            .and_then(|raw| Some(u16::from_ne_bytes(raw.try_into().ok()?)))
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { family, ..control })
    }

    /// The attributes of the one answer.
    fn ask(&self, command: u8, attributes: &[DefaultNla]) -> io::Result<Vec<DefaultNla>> {
        let body = emit_attributes(attributes);
        let length = (HEADER_BYTES + GENERIC_HEADER_BYTES + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(self.family.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        // Sequence number and port: the socket is ours alone, and the kernel fills in the port.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(body);
        self.socket.send(&message, 0)?;
        let mut answer = Vec::new();
        loop {
            let (packet, _from) = self.socket.recv_from_full()?;
            for message in messages(&packet) {
                match error_code(message) {
                    Some(0) => return Ok(answer),
                    Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                    None => {
                        let attributes = message.get(HEADER_BYTES + GENERIC_HEADER_BYTES..);
                        answer = parse_attributes(attributes.unwrap_or_default())
                            .map_err(io::Error::other)?;
                    }
                }
            }
        }
    }
}

/// The messages of a datagram, header included.
fn messages(packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let message = rest.get(..length).filter(|_| length >= HEADER_BYTES)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The errno of an error message, negative; 0 of an acknowledgement.
fn error_code(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let code = message.get(HEADER_BYTES..HEADER_BYTES + 4)?;
    (i32::from(kind) == libc::NLMSG_ERROR)
        .then(|| i32::from_ne_bytes(code.try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_datagram_come_apart_and_a_torn_one_ends_them() {
        let message = |length: u32, kind: u16, code: i32| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        let packet = [message(20, 40, 7), message(20, 2, -95), message(90, 2, 0)].concat();
        let codes: Vec<Option<i32>> = messages(&packet).map(error_code).collect();
        assert_eq!(codes, [None, Some(-95)]);
        assert_eq!(messages(&[0; 40]).count(), 0);
    }

    #[tokio::test]
    async fn the_loopback_tells_its_offloads_and_queues() {
        let card = card(1).await.unwrap();
        assert!(card.tx_queues >= 1 && card.gso_max_bytes > 1500, "{card:?}");
        if let Some(offloads) = &card.offloads {
            assert!(
                offloads.iter().any(|name| name.contains("checksum")),
                "{card:?}"
            );
            assert_eq!(card.has("no-such-offload"), Some(false));
        }
        assert_eq!(card.xdp_program, None);
        super::card(u32::MAX >> 1).await.unwrap_err();
    }
}
