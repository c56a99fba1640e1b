//! What `skb->priority` means to the qdisc that stands on an interface.

use scheduler_common::class::BANDS;

use super::{
    QdiscError, htb,
    netlink::{Netlink, ROOT, TCA_OPTIONS, TcObject, find, handle_text, parse_attributes},
};

/// Low four bits of a priority, by which maps of priorities go (`TC_PRIO_MAX`).
const PRIORITIES: usize = 16;
/// `TC_PRIO_CONTROL`: before kernel 6.7 `fq` lets such packets pass all others.
const CONTROL: usize = 7;
/// How deep a queue may hang below qdiscs that have but one.
const MAX_DEPTH: usize = 4;

const TCA_ETS_NBANDS: u16 = 1;
const TCA_FQ_PRIOMAP: u16 = 16;
const TCA_CAKE_DIFFSERV_MODE: u16 = 3;

/// How the bands fold onto the queues of a qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Kind of the qdisc that sorts by priority, or of the root if none does.
    pub kind: String,
    /// What a band's packets must have in `skb->priority`; `None` to leave it alone.
    pub priorities: Option<[u32; BANDS]>,
    /// Whether a packet's departure time is kept.
    pub paces: bool,
    /// How the bands fold, or why they do not; for people.
    pub described: String,
}

impl Mapping {
    /// A table that somebody wrote by hand.
    pub fn by_hand(self, priorities: [u32; BANDS]) -> Self {
        Self {
            priorities: Some(priorities),
            described: format!("{}, priorities as given", self.kind),
            ..self
        }
    }

    fn onto(kind: &str, described: String, queues: &[u32]) -> Self {
        Self {
            kind: kind.to_owned(),
            priorities: Some(folded(queues)),
            paces: false,
            described: format!("{described}, {BANDS} bands on {} queues", queues.len()),
        }
    }

    fn none(kind: &str, reason: String) -> Self {
        Self {
            kind: kind.to_owned(),
            priorities: None,
            paces: false,
            described: reason,
        }
    }
}

/// Reads what stands on the interface, and how bands are told to it.
pub async fn mapping(ifindex: u32) -> Result<Mapping, QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    Ok(mapping_of(&netlink.qdiscs().await?))
}

fn mapping_of(qdiscs: &[TcObject]) -> Mapping {
    let Some(root) = qdiscs.iter().find(|qdisc| qdisc.parent == ROOT) else {
        return without_queue("noqueue");
    };
    let mut sorter = root;
    for _ in 0..MAX_DEPTH {
        match sorter.kind().as_str() {
            "mq" => return multi_queue(root, sorter, qdiscs),
            // One queue below, which may sort.
            "tbf" | "netem" => match children(sorter, qdiscs).first() {
                Some(child) => sorter = child,
                None => break,
            },
            _ => break,
        }
    }
    let mapping = single(sorter);
    let below = children(sorter, qdiscs);
    let times_are_kept = !below.is_empty() && below.iter().all(|qdisc| qdisc.kind() == "fq");
    Mapping {
        paces: mapping.paces || times_are_kept,
        ..mapping
    }
}

/// Qdiscs that hang on one.
fn children<'a>(parent: &TcObject, qdiscs: &'a [TcObject]) -> Vec<&'a TcObject> {
    let is_child = |qdisc: &&TcObject| {
        qdisc.parent != ROOT && qdisc.parent & 0xffff_0000 == parent.handle & 0xffff_0000
    };
    qdiscs.iter().filter(is_child).collect()
}

/// `mq`: a packet's queue is chosen without its priority; what sorts is the qdisc of each queue.
fn multi_queue(root: &TcObject, mq: &TcObject, qdiscs: &[TcObject]) -> Mapping {
    let queues = children(mq, qdiscs);
    let Some(first) = queues.first() else {
        return single(root);
    };
    // A class of one queue's qdisc means nothing to the others': only a map of priorities does.
    let below = by_map(first);
    if queues.iter().any(|queue| by_map(queue) != below) {
        let reason = "the queues of mq differ, so no priority means the same to all".to_owned();
        return Mapping::none("mq", reason);
    }
    let kind = first.kind();
    match below {
        Some(map) => Mapping {
            paces: kind == "fq",
            ..Mapping::onto(&kind, format!("{kind} below mq"), &queues_of_map(&map))
        },
        None => Mapping {
            paces: kind == "fq",
            ..unsorted(&kind)
        },
    }
}

fn single(qdisc: &TcObject) -> Mapping {
    let kind = qdisc.kind();
    let text = format!("{kind} {}", handle_text(qdisc.handle));
    let options = qdisc.attribute(TCA_OPTIONS).unwrap_or_default();
    let classes = |count: usize, first_is_top: bool| {
        let class = |nth: usize| qdisc.handle | (nth as u32 + 1);
        let queues: Vec<u32> = if first_is_top {
            (0..count).map(class).collect()
        } else {
            (0..count).rev().map(class).collect()
        };
        Mapping::onto(&kind, text.clone(), &queues)
    };
    match kind.as_str() {
        "noqueue" => without_queue(&kind),
        "htb" if qdisc.handle == htb::ROOT_HANDLE => classes(BANDS, true),
        // The qdisc of a queue that the kernel made itself has no handle to name a class by.
        "prio" | "ets" if qdisc.handle != 0 => match class_count(&kind, &options) {
            Some(count) => classes(count, true),
            None => unsorted(&kind),
        },
        // Classes of cake are its tins, the least urgent first (`cake_select_tin`).
        "cake" if qdisc.handle != 0 => match tin_count(&options) {
            Some(count) => classes(count, false),
            None => unsorted(&kind),
        },
        "mqprio" => match traffic_classes(&options) {
            Some(queues) => Mapping::onto(&kind, text.clone(), &queues),
            None => unsorted(&kind),
        },
        _ => match by_map(qdisc) {
            Some(map) => Mapping {
                paces: kind == "fq",
                ..Mapping::onto(&kind, text, &queues_of_map(&map))
            },
            None => Mapping {
                paces: kind == "fq",
                ..unsorted(&kind)
            },
        },
    }
}

fn without_queue(kind: &str) -> Mapping {
    let reason = "the interface never queues, so no packet waits behind another; \
                  `--rate` makes a queue that sorts";
    Mapping::none(kind, reason.to_owned())
}

fn unsorted(kind: &str) -> Mapping {
    let reason = format!(
        "{kind} does not sort by priorities that are known here; `--priorities` names them, \
         `--rate` or `--qdisc prio --replace` makes a queue that sorts"
    );
    Mapping::none(kind, reason)
}

/// The map from the low four bits of a priority to a queue, 0 the most urgent.
///
/// Of `prio` and `ets` it holds for priorities that name no class of theirs.
fn by_map(qdisc: &TcObject) -> Option<[u8; PRIORITIES]> {
    let options = qdisc.attribute(TCA_OPTIONS)?;
    match qdisc.kind().as_str() {
        // `struct tc_prio_qopt`: number of bands, map.
        "prio" | "pfifo_fast" => map_at(&options, 4),
        "fq" => {
            let nested = parse_attributes(&options).ok()?;
            // Before kernel 6.7 fq has no bands.
            map_at(&find(&nested, TCA_FQ_PRIOMAP)?, 4)
        }
        _ => None,
    }
}

fn map_at(raw: &[u8], at: usize) -> Option<[u8; PRIORITIES]> {
    raw.get(at..at + PRIORITIES)?.try_into().ok()
}

/// For each queue that the map leads to, the most urgent first, a priority that leads there.
fn queues_of_map(map: &[u8; PRIORITIES]) -> Vec<u32> {
    let mut queues: Vec<u8> = map.to_vec();
    queues.sort_unstable();
    queues.dedup();
    queues
        .iter()
        .map(|queue| priority_of(map, *queue))
        .collect()
}

fn priority_of(map: &[u8; PRIORITIES], queue: u8) -> u32 {
    let leads = |priority: &usize| map.get(*priority) == Some(&queue);
    let ordinary = (0..PRIORITIES).find(|priority| *priority != CONTROL && leads(priority));
    ordinary.unwrap_or(CONTROL) as u32
}

fn class_count(kind: &str, options: &[u8]) -> Option<usize> {
    let count = if kind == "prio" {
        u32::from_ne_bytes(options.get(..4)?.try_into().ok()?) as usize
    } else {
        let nested = parse_attributes(options).ok()?;
        usize::from(*find(&nested, TCA_ETS_NBANDS)?.first()?)
    };
    (1..=PRIORITIES).contains(&count).then_some(count)
}

fn tin_count(options: &[u8]) -> Option<usize> {
    let nested = parse_attributes(options).ok()?;
    let mode = find(&nested, TCA_CAKE_DIFFSERV_MODE)?;
    match u32::from_ne_bytes(mode.try_into().ok()?) {
        0 => Some(3),
        1 => Some(4),
        2 | 4 => Some(8),
        _ => None,
    }
}

/// The traffic classes of `mqprio`, each by a priority that leads to it, the most urgent first.
///
/// Which end is urgent is not written anywhere, and drivers differ. Priority 0 is ordinary traffic: the class
/// it has is the last where it is one of the two ends, and else the first number is.
fn traffic_classes(options: &[u8]) -> Option<Vec<u32>> {
    // `struct tc_mqprio_qopt`: number of classes, map.
    let count = *options.first()?;
    let map = map_at(options, 1)?;
    let mut queues = queues_of_map(&map);
    if count == 0 || map[0].checked_add(1) != Some(count) {
        queues.reverse();
    }
    Some(queues)
}

/// Bands onto queues: neighbours share one, and order stays.
fn folded(queues: &[u32]) -> [u32; BANDS] {
    std::array::from_fn(|band| {
        let nth = if queues.len() < BANDS {
            band * queues.len() / BANDS
        } else {
            band
        };
        queues.get(nth).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::{super::netlink::emit_attributes, *};

    const DEFAULT_MAP: [u8; PRIORITIES] = [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];
    const HANDLE: u32 = 0x10_0000;

    fn prio_options(bands: u32, map: [u8; PRIORITIES]) -> Vec<u8> {
        [bands.to_ne_bytes().as_slice(), &map].concat()
    }

    fn root(kind: &str, options: Vec<u8>) -> TcObject {
        TcObject::new(HANDLE, ROOT, kind, Some(options))
    }

    fn priorities(qdiscs: &[TcObject]) -> Vec<u32> {
        mapping_of(qdiscs).priorities.unwrap().to_vec()
    }

    #[test]
    fn bands_fold_in_order_onto_any_number_of_queues() {
        for count in 1..=16 {
            let queues: Vec<u32> = (100..100 + count).collect();
            let table = folded(&queues);
            assert!(table.is_sorted(), "{table:?}");
            assert_eq!(table[0], 100);
            let used = count.min(BANDS as u32);
            assert_eq!(table[BANDS - 1], 99 + used, "the last queue is used");
        }
        assert_eq!(folded(&[1, 2, 3]), [1, 1, 1, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn prio_and_ets_are_told_by_class() {
        let prio = root("prio", prio_options(3, DEFAULT_MAP));
        let [a, b, c] = [1, 2, 3].map(|minor| HANDLE | minor);
        assert_eq!(priorities(&[prio]), [a, a, a, b, b, b, c, c]);
        let options = emit_attributes(&[DefaultNla::new(TCA_ETS_NBANDS, vec![8])]);
        let ets: Vec<u32> = (1..=8).map(|minor| HANDLE | minor).collect();
        assert_eq!(priorities(&[root("ets", options)]), ets);
    }

    #[test]
    fn maps_of_priorities_are_read_backwards() {
        let fast = root("pfifo_fast", prio_options(3, DEFAULT_MAP));
        assert_eq!(priorities(&[fast]), [6, 6, 6, 0, 0, 0, 1, 1]);
        let map = DefaultNla::new(TCA_FQ_PRIOMAP, prio_options(3, DEFAULT_MAP));
        let fq = mapping_of(&[root("fq", emit_attributes(&[map]))]);
        assert_eq!(fq.priorities.unwrap(), [6, 6, 6, 0, 0, 0, 1, 1]);
        assert!(fq.paces);
        // An old fq has no bands, and paces all the same.
        let old = mapping_of(&[root("fq", Vec::new())]);
        assert!(old.priorities.is_none() && old.paces);
        // A map that leads to one queue by the control priority alone.
        let mut map = [1; PRIORITIES];
        map[CONTROL] = 0;
        assert_eq!(queues_of_map(&map), [7, 0]);
    }

    #[test]
    fn the_queues_of_mq_must_agree() {
        let mq = TcObject::new(0, ROOT, "mq", None);
        let queue =
            |number: u32, map| TcObject::new(0, number, "pfifo_fast", Some(prio_options(3, map)));
        let tree = [mq.clone(), queue(1, DEFAULT_MAP), queue(2, DEFAULT_MAP)];
        assert_eq!(priorities(&tree), [6, 6, 6, 0, 0, 0, 1, 1]);
        let differ = mapping_of(&[mq, queue(1, DEFAULT_MAP), queue(2, [0; PRIORITIES])]);
        assert!(differ.priorities.is_none());
        assert!(differ.described.contains("differ"), "{differ:?}");
    }

    #[test]
    fn a_sorter_below_a_rate_limit_is_found() {
        let tbf = root("tbf", Vec::new());
        let prio = TcObject::new(
            0x20_0000,
            HANDLE | 1,
            "prio",
            Some(prio_options(8, DEFAULT_MAP)),
        );
        let expected: Vec<u32> = (1..=8).map(|minor| 0x20_0000 | minor).collect();
        assert_eq!(priorities(&[tbf, prio]), expected);
    }

    #[test]
    fn traffic_classes_are_ranked_by_where_ordinary_traffic_is() {
        let options = |count: u8, map: [u8; PRIORITIES]| [&[count], map.as_slice()].concat();
        let eight: [u8; PRIORITIES] = std::array::from_fn(|priority| (priority % 8) as u8);
        let ascending = traffic_classes(&options(8, eight)).unwrap();
        // 15 leads to class 7 as well, and is not the control priority.
        assert_eq!(ascending, [15, 6, 5, 4, 3, 2, 1, 0]);
        let mut last_is_ordinary = [2; PRIORITIES];
        last_is_ordinary[3] = 0;
        last_is_ordinary[2] = 1;
        let descending = traffic_classes(&options(3, last_is_ordinary)).unwrap();
        assert_eq!(descending, [3, 2, 0]);
    }

    #[test]
    fn the_top_tin_of_cake_is_its_last() {
        let mode = DefaultNla::new(TCA_CAKE_DIFFSERV_MODE, 0_u32.to_ne_bytes().to_vec());
        let cake = root("cake", emit_attributes(&[mode]));
        let [a, b, c] = [3, 2, 1].map(|minor| HANDLE | minor);
        assert_eq!(priorities(&[cake]), [a, a, a, b, b, b, c, c]);
    }

    #[test]
    fn what_does_not_sort_is_left_alone_and_says_what_to_do() {
        for qdiscs in [
            Vec::new(),
            vec![TcObject::new(0, ROOT, "noqueue", None)],
            vec![root("sfq", Vec::new())],
            vec![root("htb", Vec::new())],
            vec![root("prio", vec![1])],
        ] {
            let mapping = mapping_of(&qdiscs);
            assert!(mapping.priorities.is_none());
            assert!(mapping.described.contains("--rate"), "{mapping:?}");
        }
    }
}
