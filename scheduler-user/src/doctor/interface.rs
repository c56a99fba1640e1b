//! Checks of one interface: what stands there, and what its driver does.

use std::fs;

use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use nix::net::if_::{InterfaceFlags, if_nameindex};
use scheduler_common::names;

use super::Check;
use crate::{
    instance::{Instance, Record},
    qdisc::{self, Card, RootOwner, format_rate},
    uplink::{self, UplinkError},
};

/// A packet that blocks the link for longer is felt by a voice call.
const LONGEST_PACKET_MS: f64 = 5.0;
/// From here on one HTB for all CPUs is known to become the limit.
const FAST_LINK_MBIT: u64 = 10_000;

/// These interfaces by name and index, or all that are on and no loopback.
pub(super) fn choose(names: &[String]) -> Result<Vec<(String, u32)>, UplinkError> {
    if !names.is_empty() {
        return names
            .iter()
            .map(|name| Ok((name.clone(), uplink::index_of(name)?)))
            .collect();
    }
    let on: Vec<String> = nix::ifaddrs::getifaddrs()
        .map(|all| {
            all.filter(|one| {
                one.flags.contains(InterfaceFlags::IFF_UP)
                    && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            })
            .map(|one| one.interface_name)
            .collect()
        })
        .unwrap_or_default();
    let all = if_nameindex().map_err(|_none| UplinkError::NoSuchInterface {
        name: String::new(),
        present: Vec::new(),
    })?;
    Ok(all
        .iter()
        .map(|one| (one.name().to_string_lossy().into_owned(), one.index()))
        .filter(|(name, _)| on.contains(name))
        .collect())
}

pub(super) async fn checks(
    instance: &Instance,
    (name, ifindex): (&str, u32),
    rate_bps: Option<u64>,
) -> Vec<Check> {
    let record = instance
        .records()
        .unwrap_or_default()
        .into_iter()
        .find(|record| record.ifindex == ifindex);
    let rate_bps = rate_bps.or_else(|| record.as_ref()?.rate_bps);
    let mut checks = vec![root(ifindex, record.as_ref()).await];
    match qdisc::card(ifindex).await {
        Ok(card) => {
            checks.push(xdp(name, &card, record.as_ref()));
            checks.push(super_packets(name, &card, rate_bps));
            checks.push(merged(name, &card));
            checks.push(queues(&card, rate_bps, speed_mbit(name)));
        }
        Err(error) => checks.push(Check::fail(
            "card",
            error.to_string(),
            "see `ip -d link show`",
        )),
    }
    checks.push(others(name, ifindex).await);
    checks
}

/// What `up` would find at the root.
async fn root(ifindex: u32, record: Option<&Record>) -> Check {
    let look = async {
        let owner = qdisc::root_owner(ifindex).await?;
        let mapping = qdisc::mapping(ifindex).await?;
        Ok::<_, qdisc::QdiscError>((owner, mapping))
    };
    let (owner, mapping) = match look.await {
        Ok(seen) => seen,
        Err(error) => return Check::fail("root", error.to_string(), "see `tc qdisc show`"),
    };
    match owner {
        RootOwner::Treeline { kind } if record.is_some() => {
            Check::ok("root", format!("treeline's own {kind}"))
        }
        RootOwner::Treeline { kind } => Check::warn(
            "root",
            format!("a {kind} 7e: that no instance of this name has made"),
            "take it down by its own `--instance`, or `tc qdisc del dev IFACE root`",
        ),
        RootOwner::Kernel if mapping.priorities.is_some() => Check::ok("root", mapping.described),
        RootOwner::Kernel => Check::ok(
            "root",
            format!(
                "{}, the kernel's default: `--rate` puts a queue there that sorts",
                mapping.kind
            ),
        ),
        RootOwner::Administrator { kind, handle } => {
            let stands = format!("{kind} {handle}, set by an administrator");
            match (mapping.priorities, qdisc::check_restorable(ifindex).await) {
                (Some(_), _) => Check::ok("root", format!("{stands}: {}", mapping.described)),
                (None, Ok(())) => Check::warn(
                    "root",
                    format!("{stands}, does not sort by priority"),
                    "`up --rate RATE --replace` puts it aside, and `down` brings it back",
                ),
                (None, Err(error)) => Check::warn(
                    "root",
                    format!("{stands}, does not sort by priority, and {error}"),
                    "remove it yourself: `tc qdisc del dev IFACE root`, then `up --rate RATE`",
                ),
            }
        }
    }
}

fn xdp(name: &str, card: &Card, record: Option<&Record>) -> Check {
    let ours = record.is_some_and(|record| record.ingress_hook.is_some());
    match (card.xdp_program, card.native_xdp) {
        (Some(_), _) if ours => Check::ok("xdp", "treeline observes ingress"),
        (Some(id), _) => Check::warn(
            "xdp",
            format!(
                "program {} has the place: egress is scheduled all the same, and what comes in is unknown to the model",
                name_of(id).map_or_else(
                    || format!("number {id}"),
                    |name| format!("{name} (number {id})")
                )
            ),
            format!("ip link set dev {name} xdp off, if it is not needed"),
        ),
        (None, Some(true)) => Check::ok("xdp", "in the driver"),
        (None, Some(false)) => Check::ok(
            "xdp",
            "not in the driver: ingress is observed in the stack, for some more cycles a packet",
        ),
        (None, None) => Check::ok(
            "xdp",
            "free; this kernel does not say whether the driver has it",
        ),
    }
}

fn name_of(id: u32) -> Option<String> {
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)?;
    Some(info.name_as_str()?.to_owned())
}

/// Packets that the stack makes large and the card cuts: the qdisc can't get between their parts.
fn super_packets(name: &str, card: &Card, rate_bps: Option<u64>) -> Check {
    let offloads = ["tx-tcp-segmentation", "tx-generic-segmentation"];
    let made = offloads
        .iter()
        .any(|offload| card.has(offload) != Some(false));
    if !made {
        return Check::ok("gso", "packets are sent as they are on the wire");
    }
    let bytes = card.gso_max_bytes;
    let Some(rate_bps) = rate_bps else {
        let slow_bps = (f64::from(bytes) * 8e3 / LONGEST_PACKET_MS) as u64;
        return Check::ok(
            "gso",
            format!(
                "up to {bytes} bytes are queued as one packet: felt below {}",
                format_rate(slow_bps / 1_000_000 * 1_000_000)
            ),
        );
    };
    let blocks_ms = f64::from(bytes) * 8e3 / rate_bps as f64;
    let found = format!(
        "up to {bytes} bytes are queued as one packet, {blocks_ms:.1} ms at {}",
        format_rate(rate_bps)
    );
    if blocks_ms <= LONGEST_PACKET_MS {
        return Check::ok("gso", found);
    }
    let fitting = (rate_bps as f64 * LONGEST_PACKET_MS / 8e3) as u64;
    Check::warn(
        "gso",
        format!("{found}, in which nothing urgent gets through"),
        format!("ip link set dev {name} gso_max_size {}", fitting.max(3_000)),
    )
}

/// Packets that the card or the stack merges on their way in.
fn merged(name: &str, card: &Card) -> Check {
    match (card.has("rx-lro"), card.has("rx-gro")) {
        (Some(true), _) => Check::warn(
            "gro",
            "the card merges what it receives (LRO), which XDP and forwarding can't do with",
            format!("ethtool -K {name} lro off"),
        ),
        (_, Some(true)) => Check::ok("gro", "on in the stack, off in the card"),
        (Some(false), Some(false)) => Check::ok("gro", "off"),
        _ => Check::ok("gro", "this kernel does not say"),
    }
}

fn queues(card: &Card, rate_bps: Option<u64>, speed_mbit: Option<u64>) -> Check {
    let count = card.tx_queues;
    let fast = speed_mbit.is_some_and(|speed| speed >= FAST_LINK_MBIT)
        && rate_bps.is_none_or(|rate| rate / 1_000_000 >= FAST_LINK_MBIT);
    let speed = speed_mbit.map_or_else(String::new, |speed| format!(", {speed} Mbit/s"));
    let found = format!("{count} to transmit{speed}");
    if fast && count > 1 {
        Check::warn(
            "queues",
            format!("{found}: `--rate` would lead them all through one queue with one lock"),
            "use `--qdisc keep` with mq and fq below it, or shape to less than 10gbit",
        )
    } else {
        Check::ok("queues", found)
    }
}

fn speed_mbit(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/speed")).ok()?;
    // Drivers without one say -1 or nothing.
    text.trim().parse().ok()
}

/// Programs of others on the same hooks: they go on, and the order may matter.
async fn others(name: &str, ifindex: u32) -> Check {
    let mut found = Vec::new();
    let mut are_hidden = false;
    let is_ours = |name: &str| name.starts_with(names::EGRESS) || names::EGRESS.starts_with(name);
    for (side, attach) in [
        ("egress", TcAttachType::Egress),
        ("ingress", TcAttachType::Ingress),
    ] {
        match SchedClassifier::query_tcx(name, attach) {
            Ok((_revision, programs)) => {
                let tell = |info: &ProgramInfo| info.name_as_str().unwrap_or("?").to_owned();
                let foreign = programs.iter().map(tell).filter(|name| !is_ours(name));
                found.extend(foreign.map(|name| format!("{name} (TCX {side})")));
            }
            // Their numbers are told to everybody who may attach, what is behind them is not.
            Err(error) => are_hidden |= is_refused(&error),
        }
    }
    if let Ok([ingress, egress]) = qdisc::filters(ifindex).await {
        for (side, filters) in [("ingress", ingress), ("egress", egress)] {
            let foreign = filters.into_iter().filter(|name| !is_ours(name));
            found.extend(foreign.map(|name| format!("{name} (clsact {side})")));
        }
    }
    if are_hidden {
        return Check::warn(
            "others",
            "not known: programs on TCX are named with CAP_SYS_ADMIN alone",
            "run as root: `sudo treeline doctor`",
        );
    }
    if found.is_empty() {
        return Check::ok("others", "no programs or filters of others");
    }
    Check::ok(
        "others",
        format!(
            "{}: they go on; treeline runs before them, or behind with `--order last`",
            found.join(", ")
        ),
    )
}

/// Whether the kernel did not let it be asked; before 6.6 there is no TCX, which is another answer.
fn is_refused(error: &ProgramError) -> bool {
    let mut causes =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
            error.source()
        });
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn card(offloads: &[&str]) -> Card {
        Card {
            tx_queues: 4,
            gso_max_bytes: 65_536,
            offloads: Some(offloads.iter().map(|&name| name.to_owned()).collect()),
            ..Card::default()
        }
    }

    #[test]
    fn large_packets_are_warned_of_where_the_link_is_slow() {
        let tso = card(&["tx-tcp-segmentation"]);
        let check = super_packets("eth0", &tso, Some(20_000_000));
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.found.contains("26.2 ms at 20mbit"), "{check:?}");
        let remedy = check.remedy.unwrap();
        assert_eq!(remedy, "ip link set dev eth0 gso_max_size 12500");
        let fast = super_packets("eth0", &tso, Some(1_000_000_000));
        assert_eq!(fast.verdict, Verdict::Ok);
        assert!(super_packets("eth0", &tso, None).found.contains("104mbit"));
        let none = super_packets("eth0", &card(&[]), Some(1_000_000));
        assert_eq!(none.verdict, Verdict::Ok);
        let unknown = Card {
            offloads: None,
            ..tso
        };
        assert_eq!(
            super_packets("eth0", &unknown, Some(1_000_000)).verdict,
            Verdict::Warn
        );
    }

    #[test]
    fn merging_in_the_card_and_one_lock_on_a_fast_link_are_warned_of() {
        assert_eq!(merged("e", &card(&["rx-lro"])).verdict, Verdict::Warn);
        assert_eq!(merged("e", &card(&["rx-gro"])).verdict, Verdict::Ok);
        let warned = |rate, speed| queues(&card(&[]), rate, speed).verdict == Verdict::Warn;
        assert!(warned(None, Some(25_000)));
        assert!(!warned(Some(1_000_000_000), Some(25_000)));
        assert!(!warned(None, Some(1_000)) && !warned(None, None));
    }

    #[test]
    fn a_foreign_xdp_program_is_told_with_the_way_to_be_rid_of_it() {
        let taken = Card {
            xdp_program: Some(u32::MAX),
            ..card(&[])
        };
        let check = xdp("eth0", &taken, None);
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(
            check
                .remedy
                .unwrap()
                .contains("ip link set dev eth0 xdp off")
        );
        assert_eq!(xdp("eth0", &card(&[]), None).verdict, Verdict::Ok);
    }
}
