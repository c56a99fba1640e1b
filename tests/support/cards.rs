//! Emulated network cards, where the machine has some for tests.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use bed::netns::Namespace;

use super::{left_out, tunnel};

/// A card's name in the namespace that it is put into.
pub(crate) const CARD: &str = "card0";
/// Names the addresses of two cards that are joined by a cable.
const CABLE: &str = "TREELINE_CABLE";
/// Names the address of a card with two queues, whose frames reach nobody.
const QUEUES: &str = "TREELINE_QUEUES";

/// A card in a namespace; dropping it hands the card back to where all tests find it.
pub(crate) struct Card {
    namespace: String,
    name: &'static str,
    address: String,
    turn: Option<MutexGuard<'static, ()>>,
}

impl Card {
    /// Puts the card with this address into a namespace, under this name.
    fn put(namespace: &Namespace, name: &'static str, address: &str) -> Result<Self> {
        let present = with_address(address)?;
        let inside = namespace.name();
        bed::command::run(
            "ip",
            &format!("link set {present} down netns {inside} name {name}"),
        )?;
        Ok(Self {
            namespace: inside.to_owned(),
            name,
            address: address.to_owned(),
            turn: None,
        })
    }

    /// The card with two queues; `None` where there is none.
    pub(crate) fn with_queues(namespace: &Namespace, name: &'static str) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let address = named(QUEUES)?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut card = Self::put(namespace, name, &address).unwrap();
        card.turn = Some(turn);
        Some(card)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // By the end of its address, so that no two cards have one name.
        let name = self.address.rsplit(':').next().unwrap_or_default();
        let back = format!(
            "-n {} link set {} down netns 1 name spare{name}",
            self.namespace, self.name
        );
        // A namespace that has gone has handed it back by itself.
        drop(bed::command::run("ip", &back));
    }
}

/// Two namespaces that talk over two cards and a cable.
pub(crate) struct Cable {
    // First, as a card is handed back from a namespace that still is.
    _cards: [Card; 2],
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
    _turn: MutexGuard<'static, ()>,
}

impl Cable {
    /// Ends of the cable, each with another way of its driver through XDP.
    pub(crate) const ENDS: [usize; 2] = [0, 1];
    /// Address of the near end.
    pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 1);
    /// Address of the far end.
    pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 2);

    /// Plugs in, with this end of the cable near; `None` where there is no cable.
    ///
    /// Nothing but IPv4 is on the cable, and the near end never merges packets: so they can be counted.
    pub(crate) fn plug(end: usize) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let named = named(CABLE)?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses: Vec<&str> = named.split(',').collect();
        let [near, far] = ["near", "far"].map(|tag| Namespace::new(tag).unwrap());
        let [near_mac, far_mac] = [addresses[end], addresses[1 - end]];
        for namespace in [&near, &far] {
            namespace
                .write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
                .unwrap();
        }
        let cards = [
            Card::put(&near, CARD, near_mac).unwrap(),
            Card::put(&far, CARD, far_mac).unwrap(),
        ];
        for (namespace, address, peer, mac) in [
            (&near, Self::NEAR, Self::FAR, far_mac),
            (&far, Self::FAR, Self::NEAR, near_mac),
        ] {
            for command in [
                format!("link set {CARD} gro_max_size 100"),
                format!("addr add dev {CARD} {address}/24"),
                format!("link set {CARD} up"),
                format!("neigh replace {peer} lladdr {mac} dev {CARD} nud permanent"),
            ] {
                namespace.ip(&command).unwrap();
            }
        }
        Some(Self {
            _cards: cards,
            near,
            far,
            _turn: turn,
        })
    }

    /// The near end asks with 100 bytes and gets so many.
    pub(crate) fn download(&self, bytes: usize) {
        tunnel::answered((&self.far, &self.near), IpAddr::from(Self::FAR), bytes);
    }

    /// Frames that the far end has sent so far.
    pub(crate) fn sent_frames(&self) -> u64 {
        let shown = self
            .far
            .ip(&format!("-json -stats link show {CARD}"))
            .unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    }
}

/// What the variable says of the cards for tests; without it the test says why it does nothing.
fn named(variable: &str) -> Option<String> {
    let named = env::var(variable).ok();
    if named.is_none() {
        left_out(format_args!(
            "this machine has no network cards for tests ({variable})"
        ));
    }
    named
}

fn with_address(wanted: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net").context("cannot list network devices")? {
        let entry = entry?;
        // A device may go while the list is read.
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim() == wanted {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no network card has the address {wanted}")
}
