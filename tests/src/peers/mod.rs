//! The kernel's own queueing disciplines, each tuned as its documentation advises.
//!
//! All hold about as much as the bands of treeline do ([`BUFFER_PACKETS`]), so that none wins by losing
//! later. What doesn't shape by itself stands below an HTB class at the link's rate.

mod classifier;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use self::classifier::Classifier;
use crate::netns::Namespace;

/// Packets that wait at most, over all queues of a peer.
pub const BUFFER_PACKETS: u32 = 1000;
/// Major number of a peer's root qdisc, which the classifier's classes name.
const ROOT: &str = "7b:";
/// Below it fq_codel's manual advises the small quantum, which favours small packets.
const SMALL_QUANTUM_BELOW_BPS: u64 = 100_000_000;

/// A queueing discipline, or a combination of them, as an administrator would set it up.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// One queue in order of arrival.
    Pfifo,
    /// The kernel's three bands by the type of service.
    PfifoFast,
    /// HTB with four classes, to which a careful administrator has given ports.
    PortRules,
    /// Fair among flows, bounded delay.
    FqCodel,
    /// Fair among flows.
    Fq,
    /// CAKE without classes.
    CakeBesteffort,
    /// CAKE with four tins, by the DSCP that senders set.
    #[value(name = "cake-diffserv4")]
    #[serde(rename = "cake-diffserv4")]
    CakeDiffserv4,
    /// Strict priority among four classes by ports.
    Prio,
    /// One strict class and three weighted ones, by ports.
    Ets,
    /// Two heuristics of qosify, above CAKE's tins where the kernel has CAKE, else above four classes of HTB.
    Qosify,
}

/// What an administrator takes the traffic of a port for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// Voice, games: each packet is waited for.
    Urgent,
    /// Terminals, small requests.
    Interactive,
    /// Pages; also what no rule names.
    Normal,
    /// Backups, downloads.
    Bulk,
}

impl Rank {
    /// The most urgent first.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Interactive, Self::Normal, Self::Bulk];

    /// Share of the link that it is sure of, in hundredths.
    const fn share(self) -> u64 {
        match self {
            Self::Urgent => 20,
            Self::Interactive | Self::Normal => 35,
            Self::Bulk => 10,
        }
    }

    /// Number of its class, from 1.
    const fn class(self) -> u16 {
        self as u16 + 1
    }
}

/// One line of the administrator's rules: TCP and UDP, this port at either end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct PortRule {
    /// The port.
    pub port: u16,
    /// What it is taken for.
    pub rank: Rank,
}

/// Queue of a class that has no discipline of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Leaf {
    Pfifo,
    FqCodel,
}

/// What a running kernel has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kernel {
    fq_codel: bool,
    cake: bool,
    fq: bool,
    prio: bool,
    ets: bool,
}

impl Kernel {
    /// Tries each discipline in a namespace that is removed again.
    ///
    /// # Errors
    ///
    /// Without root or iproute2.
    pub fn ask() -> Result<Self> {
        let namespace = Namespace::new("kinds")?;
        let has = |kind: &str| {
            namespace
                .tc(&format!("qdisc replace dev lo root {kind}"))
                .is_ok()
        };
        Ok(Self {
            fq_codel: has("fq_codel"),
            cake: has("cake"),
            fq: has("fq"),
            prio: has("prio"),
            ets: has("ets bands 4 strict 1"),
        })
    }
}

/// A peer on a link of a certain rate.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Which.
    pub peer: Peer,
    /// Link rate.
    pub rate_bps: u64,
    /// The administrator's rules; those peers that don't sort by port need none.
    pub rules: &'a [PortRule],
    /// What the kernel has.
    pub kernel: Kernel,
}

impl Peer {
    /// In the order of tables.
    pub const ALL: [Self; 10] = [
        Self::Pfifo,
        Self::PfifoFast,
        Self::PortRules,
        Self::FqCodel,
        Self::Fq,
        Self::CakeBesteffort,
        Self::CakeDiffserv4,
        Self::Prio,
        Self::Ets,
        Self::Qosify,
    ];

    /// Name for tables and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pfifo => "pfifo",
            Self::PfifoFast => "pfifo-fast",
            Self::PortRules => "port-rules",
            Self::FqCodel => "fq-codel",
            Self::Fq => "fq",
            Self::CakeBesteffort => "cake-besteffort",
            Self::CakeDiffserv4 => "cake-diffserv4",
            Self::Prio => "prio",
            Self::Ets => "ets",
            Self::Qosify => "qosify",
        }
    }

    /// Whether the kernel can do it.
    #[must_use]
    pub const fn is_there(self, kernel: Kernel) -> bool {
        match self {
            Self::Pfifo | Self::PfifoFast | Self::PortRules | Self::Qosify => true,
            Self::FqCodel => kernel.fq_codel,
            Self::Fq => kernel.fq,
            Self::CakeBesteffort | Self::CakeDiffserv4 => kernel.cake,
            Self::Prio => kernel.prio,
            Self::Ets => kernel.ets,
        }
    }

    /// Whether senders that mark their packets rightly are part of it.
    ///
    /// Not of pfifo_fast, which reads the type of service as it was before DSCP: AF21 is its lowest band.
    #[must_use]
    pub const fn reads_marks(self) -> bool {
        matches!(self, Self::CakeDiffserv4)
    }
}

impl Plan<'_> {
    /// Arguments of `tc`, one command an entry, for the report as for the kernel.
    #[must_use]
    pub fn commands(&self, device: &str) -> Vec<String> {
        let rate = self.rate_bps;
        let root = |what: String| format!("qdisc replace dev {device} root handle {ROOT} {what}");
        let below_htb = |leaf: String| {
            let mut commands = self.htb(device);
            commands.push(format!(
                "qdisc add dev {device} parent {ROOT}1 handle 7c: {leaf}"
            ));
            commands
        };
        // Paths of some milliseconds: CAKE's manual calls it `metro`. The link's own headers are counted by nobody here.
        let cake = |mode: &str| format!("cake bandwidth {rate}bit {mode} rtt 10ms raw");
        match self.peer {
            Peer::Pfifo => below_htb(format!("pfifo limit {BUFFER_PACKETS}")),
            // It takes its length from the device, for each of its bands.
            Peer::PfifoFast => {
                let mut commands = vec![format!(
                    "link set dev {device} txqueuelen {BUFFER_PACKETS}"
                )];
                commands.extend(below_htb("pfifo_fast".to_owned()));
                commands
            }
            Peer::FqCodel => below_htb(self.fq_codel(BUFFER_PACKETS)),
            Peer::Fq => below_htb(format!("fq limit {BUFFER_PACKETS}")),
            Peer::CakeBesteffort => vec![root(cake("besteffort"))],
            Peer::CakeDiffserv4 => vec![root(cake("diffserv4"))],
            Peer::PortRules => self.port_rules(device),
            Peer::Prio => self.sorted_by_port(
                below_htb("prio bands 4 priomap 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2".to_owned()),
                device,
            ),
            Peer::Ets => self.sorted_by_port(
                below_htb(
                    "ets bands 4 strict 1 quanta 6000 6000 1500 priomap 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2"
                        .to_owned(),
                ),
                device,
            ),
            Peer::Qosify if self.kernel.cake => vec![root(cake("diffserv4"))],
            Peer::Qosify => self.tins(device),
        }
    }

    /// Puts it on an interface; dropping the guard takes it off.
    ///
    /// # Errors
    ///
    /// When `tc` refuses a command, or the kernel the classifier.
    pub fn install<'a>(&self, namespace: &'a Namespace, device: &str) -> Result<Guard<'a>> {
        let mut guard = Guard {
            namespace,
            device: device.to_owned(),
            _classifier: None,
        };
        for command in self.commands(device) {
            match command.strip_prefix("link ") {
                Some(rest) => namespace.ip(&format!("link {rest}")),
                None => namespace.tc(&command),
            }
            .with_context(|| format!("cannot set up {}", self.peer.name()))?;
        }
        if self.peer == Peer::Qosify {
            guard._classifier = Some(Classifier::attach(namespace, device)?);
        }
        Ok(guard)
    }

    /// The link's rate, everything in one class.
    fn htb(&self, device: &str) -> Vec<String> {
        let rate = self.rate_bps;
        vec![
            format!("qdisc replace dev {device} root handle {ROOT} htb default 1"),
            format!(
                "class add dev {device} parent {ROOT} classid {ROOT}1 htb rate {rate}bit ceil {rate}bit \
                 burst 16000 cburst 16000 quantum 60000"
            ),
        ]
    }

    fn fq_codel(&self, limit: u32) -> String {
        let mut leaf = format!("fq_codel limit {limit} target 5ms interval 100ms");
        if self.rate_bps < SMALL_QUANTUM_BELOW_BPS {
            leaf.push_str(" quantum 300");
        }
        leaf
    }

    fn leaf(&self, limit: u32) -> String {
        let leaf = if self.kernel.fq_codel {
            Leaf::FqCodel
        } else {
            Leaf::Pfifo
        };
        match leaf {
            Leaf::FqCodel => self.fq_codel(limit),
            Leaf::Pfifo => format!("pfifo limit {limit}"),
        }
    }

    fn port_rules(&self, device: &str) -> Vec<String> {
        let rate = self.rate_bps;
        let mut commands = vec![
            format!("qdisc replace dev {device} root handle {ROOT} htb default 3"),
            format!(
                "class add dev {device} parent {ROOT} classid {ROOT}ff htb rate {rate}bit ceil {rate}bit \
                 burst 16000 cburst 16000 quantum 60000"
            ),
        ];
        for rank in Rank::ALL {
            let sure = rate * rank.share() / 100;
            let class = rank.class();
            commands.push(format!(
                "class add dev {device} parent {ROOT}ff classid {ROOT}{class} htb rate {sure}bit ceil {rate}bit \
                 burst 16000 cburst 16000 quantum 60000 prio {}",
                class - 1
            ));
            commands.push(format!(
                "qdisc add dev {device} parent {ROOT}{class} {}",
                self.leaf(BUFFER_PACKETS / 4)
            ));
        }
        commands.extend(self.filters(device, ROOT, ROOT));
        commands
    }

    /// Leaves and filters for a sorter `7c:` with four bands.
    fn sorted_by_port(&self, mut commands: Vec<String>, device: &str) -> Vec<String> {
        for rank in Rank::ALL {
            commands.push(format!(
                "qdisc add dev {device} parent 7c:{} {}",
                rank.class(),
                self.leaf(BUFFER_PACKETS / 4)
            ));
        }
        commands.extend(self.filters(device, "7c:", "7c:"));
        commands
    }

    fn filters(&self, device: &str, parent: &str, classes: &str) -> Vec<String> {
        let filter = |rule: &PortRule, side: &str| {
            format!(
                "filter add dev {device} parent {parent} protocol ip prio 1 u32 match ip {side} {} 0xffff \
                 flowid {classes}{}",
                rule.port,
                rule.rank.class()
            )
        };
        self.rules
            .iter()
            .flat_map(|rule| ["sport", "dport"].map(|side| filter(rule, side)))
            .collect()
    }

    /// Four classes as CAKE's tins are numbered: bulk, best effort, video, voice, the last one first.
    fn tins(&self, device: &str) -> Vec<String> {
        let rate = self.rate_bps;
        let mut commands = vec![
            format!("qdisc replace dev {device} root handle {ROOT} htb default 2"),
            format!(
                "class add dev {device} parent {ROOT} classid {ROOT}ff htb rate {rate}bit ceil {rate}bit \
                 burst 16000 cburst 16000 quantum 60000"
            ),
        ];
        for (tin, hundredths) in (1..).zip([6_u64, 44, 25, 25]) {
            let sure = rate * hundredths / 100;
            commands.push(format!(
                "class add dev {device} parent {ROOT}ff classid {ROOT}{tin} htb rate {sure}bit ceil {rate}bit \
                 burst 16000 cburst 16000 quantum 60000 prio {}",
                4 - tin
            ));
            commands.push(format!(
                "qdisc add dev {device} parent {ROOT}{tin} {}",
                self.leaf(BUFFER_PACKETS / 4)
            ));
        }
        commands
    }
}

/// A peer that stands on an interface.
#[derive(Debug)]
pub struct Guard<'a> {
    namespace: &'a Namespace,
    device: String,
    _classifier: Option<Classifier>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // The namespace is going to be removed anyway; a failure here must not hide another.
        drop(
            self.namespace
                .tc(&format!("qdisc del dev {} root", self.device)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{beds::Bed, netns::UPLINK};

    const RULES: [PortRule; 2] = [
        PortRule {
            port: 5060,
            rank: Rank::Urgent,
        },
        PortRule {
            port: 873,
            rank: Rank::Bulk,
        },
    ];

    fn plan(peer: Peer, kernel: Kernel) -> Plan<'static> {
        Plan {
            peer,
            rate_bps: 40_000_000,
            rules: &RULES,
            kernel,
        }
    }

    #[test]
    fn what_the_kernel_has_can_be_put_on_and_taken_off() {
        let bed = Bed::host().unwrap();
        let kernel = Kernel::ask().unwrap();
        let before = bed.server.tc(&format!("qdisc show dev {UPLINK}")).unwrap();
        for peer in Peer::ALL {
            if !peer.is_there(kernel) {
                println!("not run: this kernel has no {}", peer.name());
                continue;
            }
            let guard = plan(peer, kernel).install(&bed.server, UPLINK).unwrap();
            let standing = bed.server.tc(&format!("qdisc show dev {UPLINK}")).unwrap();
            assert!(standing.contains("7b:"), "{}: {standing}", peer.name());
            drop(guard);
            let after = bed.server.tc(&format!("qdisc show dev {UPLINK}")).unwrap();
            assert_eq!(after, before, "{}", peer.name());
        }
    }

    #[test]
    fn a_kernel_without_a_discipline_is_told() {
        let bare = Kernel {
            fq_codel: false,
            cake: false,
            fq: false,
            prio: false,
            ets: false,
        };
        let there: Vec<Peer> = Peer::ALL
            .into_iter()
            .filter(|peer| peer.is_there(bare))
            .collect();
        assert_eq!(
            there,
            [Peer::Pfifo, Peer::PfifoFast, Peer::PortRules, Peer::Qosify]
        );
        assert!(plan(Peer::Qosify, bare).commands("x")[0].contains("htb"));
        let with = Kernel { cake: true, ..bare };
        assert!(plan(Peer::Qosify, with).commands("x")[0].contains("cake"));
    }

    #[test]
    fn each_rule_names_its_class_at_both_ends() {
        let kernel = Kernel {
            fq_codel: true,
            cake: true,
            fq: true,
            prio: true,
            ets: true,
        };
        for peer in [Peer::PortRules, Peer::Prio, Peer::Ets] {
            let commands = plan(peer, kernel).commands("x");
            let filters: Vec<&String> = commands
                .iter()
                .filter(|command| command.starts_with("filter"))
                .collect();
            assert_eq!(filters.len(), 4, "{commands:?}");
            assert!(filters[1].contains("dport 5060") && filters[1].ends_with(":1"));
            assert!(filters[2].contains("sport 873") && filters[2].ends_with(":4"));
        }
    }
}
