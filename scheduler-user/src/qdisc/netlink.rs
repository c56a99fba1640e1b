//! One rtnetlink connection and tc messages in raw form.

use std::{convert::Infallible, io};

use futures::StreamExt as _;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    Nla as _, NlaBuffer, NlasIterator,
};
use netlink_packet_route::tc::{TcHandle, TcHeader, TcStatsBasic, TcStatsQueue};
use nix::libc;
use rtnetlink::proto::{
    self, ConnectionHandle,
    sys::{SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::task::JoinHandle;

use super::QdiscError;

/// `parent` of a root qdisc and of a top-level class.
pub(super) const ROOT: u32 = 0xffff_ffff;
/// `parent` of the ingress and clsact qdiscs, which are no part of the egress tree.
pub(super) const CLSACT: u32 = 0xffff_fff1;
/// Length of `struct tcmsg`.
const TC_HEADER_BYTES: usize = 20;
/// Length of `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;

pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_STATS_PKT64: u16 = 8;

/// A message body that is not interpreted on its way.
///
/// The typed messages of netlink-packet-route lose a dump whose options they can't parse and don't
/// write unknown options back as they read them; both matter when a tree is to be restored.
#[derive(Debug, Clone)]
struct Raw {
    message_type: u16,
    body: Vec<u8>,
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.message_type
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self {
            message_type: header.message_type,
            body: payload.to_vec(),
        })
    }
}

/// A tc object as dumped or to be sent: header and attributes.
#[derive(Debug, Clone)]
pub(super) struct TcObject {
    pub(super) handle: u32,
    pub(super) parent: u32,
    /// Of a filter: priority and protocol.
    pub(super) info: u32,
    pub(super) attributes: Vec<DefaultNla>,
}

impl TcObject {
    /// An object of this kind with these options.
    pub(super) fn new(handle: u32, parent: u32, kind: &str, options: Option<Vec<u8>>) -> Self {
        let mut name = kind.as_bytes().to_vec();
        name.push(0);
        let mut attributes = vec![DefaultNla::new(TCA_KIND, name)];
        attributes.extend(options.map(|bytes| DefaultNla::new(TCA_OPTIONS, bytes)));
        Self {
            handle,
            parent,
            info: 0,
            attributes,
        }
    }

    /// An object that is only named, to be deleted or listed.
    pub(super) fn named(handle: u32, parent: u32) -> Self {
        Self {
            handle,
            parent,
            info: 0,
            attributes: Vec::new(),
        }
    }

    fn parse(body: &[u8]) -> Result<(u32, Self), DecodeError> {
        let header = TcHeader::parse(body)?;
        let attributes = parse_attributes(&body[TC_HEADER_BYTES..])?;
        let (handle, parent) = (header.handle.into(), header.parent.into());
        Ok((
            header.index.cast_unsigned(),
            Self {
                handle,
                parent,
                info: header.info,
                attributes,
            },
        ))
    }

    fn emit(&self, ifindex: u32) -> Vec<u8> {
        let header = TcHeader {
            index: ifindex.cast_signed(),
            handle: TcHandle::from(self.handle),
            parent: TcHandle::from(self.parent),
            info: self.info,
            ..TcHeader::default()
        };
        let mut body = vec![0; TC_HEADER_BYTES];
        header.emit(&mut body);
        body.extend(emit_attributes(&self.attributes));
        body
    }

    /// The value of an attribute.
    pub(super) fn attribute(&self, kind: u16) -> Option<Vec<u8>> {
        find(&self.attributes, kind)
    }

    /// The name of the qdisc or of the qdisc that the class belongs to.
    pub(super) fn kind(&self) -> String {
        let name = self.attribute(TCA_KIND).unwrap_or_default();
        String::from_utf8_lossy(&name)
            .trim_end_matches('\0')
            .to_owned()
    }

    /// The nested statistics, also those this program has no name for.
    pub(super) fn statistics(&self) -> Vec<DefaultNla> {
        let nested = self.attribute(TCA_STATS2).unwrap_or_default();
        parse_attributes(&nested).unwrap_or_default()
    }

    /// Bytes and packets sent, and the state of the queue.
    pub(super) fn counters(&self) -> (u64, u64, TcStatsQueue) {
        let nested = self.statistics();
        let basic = find(&nested, TCA_STATS_BASIC).and_then(|raw| TcStatsBasic::parse(&raw).ok());
        let basic = basic.unwrap_or_default();
        // Only sent once the 32 bits of the basic counter have run over.
        let packets = find(&nested, TCA_STATS_PKT64)
            .and_then(|raw| Some(u64::from_ne_bytes(raw.try_into().ok()?)))
            .unwrap_or_else(|| basic.packets.into());
        let queue = find(&nested, TCA_STATS_QUEUE).and_then(|raw| TcStatsQueue::parse(&raw).ok());
        (basic.bytes, packets, queue.unwrap_or_default())
    }
}

/// Reads a flat list of attributes.
pub(super) fn parse_attributes(bytes: &[u8]) -> Result<Vec<DefaultNla>, DecodeError> {
    NlasIterator::new(bytes)
        .map(|nla: Result<NlaBuffer<&[u8]>, DecodeError>| {
            nla.map(|nla| DefaultNla::new(nla.kind(), nla.value().to_vec()))
        })
        .collect()
}

/// Writes a flat list of attributes.
pub(super) fn emit_attributes(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// The value of one attribute of a list.
pub(super) fn find(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let found = attributes.iter().find(|nla| nla.kind() == kind)?;
    let mut value = vec![0; found.value_len()];
    found.emit_value(&mut value);
    Some(value)
}

/// A handle in tc's notation.
pub(super) fn handle_text(handle: u32) -> String {
    match (handle >> 16, handle & 0xffff) {
        (major, 0) => format!("{major:x}:"),
        (major, minor) => format!("{major:x}:{minor:x}"),
    }
}

/// A netlink connection for one interface, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    pub(super) ifindex: u32,
    connection: ConnectionHandle<Raw>,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Connects, and makes sure that the interface exists.
    pub(super) async fn open(ifindex: u32) -> Result<Self, QdiscError> {
        let op = "open a netlink socket";
        let (task, connection, _unsolicited) = proto::new_connection(NETLINK_ROUTE)
            .map_err(|source| QdiscError::Netlink { op, source })?;
        let netlink = Self {
            ifindex,
            connection,
            task: tokio::spawn(task),
        };
        netlink.check_interface().await?;
        Ok(netlink)
    }

    async fn check_interface(&self) -> Result<(), QdiscError> {
        let Ok(index) = i32::try_from(self.ifindex) else {
            return Err(QdiscError::NoSuchInterface {
                ifindex: self.ifindex,
            });
        };
        if index == 0 {
            return Err(QdiscError::NoSuchInterface { ifindex: 0 });
        }
        let mut body = vec![0; LINK_HEADER_BYTES];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.request("look at the interface", libc::RTM_GETLINK, 0, body)
            .await
            .map(drop)
    }

    /// Sends a change and waits for the kernel's verdict.
    pub(super) async fn change(
        &self,
        op: &'static str,
        message_type: u16,
        flags: u16,
        object: &TcObject,
    ) -> Result<(), QdiscError> {
        let body = object.emit(self.ifindex);
        self.request(op, message_type, flags | NLM_F_ACK, body)
            .await
            .map(drop)
    }

    /// The interface's egress qdiscs, the root first where the kernel lists it first.
    pub(super) async fn qdiscs(&self) -> Result<Vec<TcObject>, QdiscError> {
        let any = TcObject::named(0, 0);
        let mut found = self.dump("list qdiscs", libc::RTM_GETQDISC, &any).await?;
        found.retain(|qdisc| qdisc.parent != CLSACT);
        Ok(found)
    }

    /// The interface's classes.
    pub(super) async fn classes(&self) -> Result<Vec<TcObject>, QdiscError> {
        self.dump("list classes", libc::RTM_GETTCLASS, &TcObject::named(0, 0))
            .await
    }

    /// The filters attached to a qdisc or class.
    pub(super) async fn filters(&self, parent: u32) -> Result<Vec<TcObject>, QdiscError> {
        self.dump(
            "list filters",
            libc::RTM_GETTFILTER,
            &TcObject::named(0, parent),
        )
        .await
    }

    async fn dump(
        &self,
        op: &'static str,
        message_type: u16,
        object: &TcObject,
    ) -> Result<Vec<TcObject>, QdiscError> {
        let mut found = Vec::new();
        let body = object.emit(self.ifindex);
        for raw in self.request(op, message_type, NLM_F_DUMP, body).await? {
            let (ifindex, object) =
                TcObject::parse(&raw.body).map_err(|error| QdiscError::Malformed {
                    what: format!("{op}: {error}"),
                })?;
            // The kernel lists the qdiscs of all interfaces whatever is asked for.
            if ifindex == self.ifindex {
                found.push(object);
            }
        }
        Ok(found)
    }

    async fn request(
        &self,
        op: &'static str,
        message_type: u16,
        flags: u16,
        body: Vec<u8>,
    ) -> Result<Vec<Raw>, QdiscError> {
        let fail = |source| QdiscError::from_io(op, self.ifindex, source);
        let raw = Raw { message_type, body };
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(raw));
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut answers = self
            .connection
            .request(message, SocketAddr::new(0, 0))
            .map_err(|error| fail(io::Error::other(error)))?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(raw) => found.push(raw),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(fail(error.to_io()));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}
