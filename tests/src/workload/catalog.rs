//! The bench's workloads.

use super::{
    Amounts, Group, Kind, Service, Sizes, Usually, Workload,
    sizes::{CACHE_FOLLOWER, DATA_MINING, HADOOP, STORAGE, WEB_SEARCH, WEB_SERVER},
};
use crate::mix;

const fn service(name: &'static str, usually: Usually) -> Service {
    Service { name, usually }
}

const ONE: &[Service] = &[service("all", Usually::Ordinary)];

/// Every workload that `--workload` names.
pub static WORKLOADS: [Workload; 8] = [
    Workload {
        name: "websearch",
        about: "web search, one service, a new connection for each message, sizes by chance",
        group: Group::NothingToLearn,
        services: ONE,
        amounts: Amounts::OfMessages,
        phases: &[&[Kind::PLAIN]],
        unit: 1.0,
    },
    Workload {
        name: "datamining",
        about: "data mining up to 100 MB, one service, a new connection for each message, sizes by chance",
        group: Group::NothingToLearn,
        services: ONE,
        amounts: Amounts::OfMessages,
        // The last hundredths are of 100 MB to 1 GB: a run of seconds would hold one of them, or none.
        phases: &[&[Kind {
            sizes: Sizes::part_of(DATA_MINING, 0.0, 0.98),
            ..Kind::PLAIN
        }]],
        unit: 1.0,
    },
    Workload {
        name: "services",
        about: "five services, each with a published distribution of its own",
        group: Group::Learnable,
        services: &[
            service("web", Usually::Interactive),
            service("storage", Usually::Interactive),
            service("hadoop", Usually::Ordinary),
            service("cache", Usually::Ordinary),
            service("backup", Usually::Bulk),
        ],
        amounts: Amounts::OfBytes,
        phases: &[&SERVICES],
        unit: 1.0,
    },
    Workload {
        name: "requests",
        about: "web search on one port over kept connections; the request's length tells the size but for one in ten",
        group: Group::Learnable,
        services: ONE,
        amounts: Amounts::OfMessages,
        phases: &[&REQUESTS],
        unit: 1.0,
    },
    Workload {
        name: "networks",
        about: "web search on one port; who asks, and over which connection, tells the size in six of seven",
        group: Group::Learnable,
        services: ONE,
        amounts: Amounts::OfMessages,
        phases: &[&NETWORKS],
        unit: 1.0,
    },
    Workload {
        name: "demo",
        about: "the demo's five services, log-normal; media has two kinds on one port",
        group: Group::Learnable,
        services: &[
            service("rpc", Usually::Interactive),
            service("web", Usually::Interactive),
            service("media", Usually::Ordinary),
            service("download", Usually::Ordinary),
            service("bulk", Usually::Bulk),
        ],
        amounts: Amounts::OfBytes,
        phases: &[&mix::KINDS],
        // The demo's sizes are made for its link, as the others are after their scale of a tenth.
        unit: 10.0,
    },
    Workload {
        name: "kept",
        about: "web search over kept connections, many messages each, sizes by chance",
        group: Group::Kept,
        services: ONE,
        amounts: Amounts::OfMessages,
        phases: &[&[Kind {
            kept: true,
            ..Kind::PLAIN
        }]],
        unit: 1.0,
    },
    Workload {
        name: "turning",
        about: "three services; in the middle, reports turn from short to bulk",
        group: Group::Changing,
        services: &[
            service("pages", Usually::Interactive),
            service("files", Usually::Bulk),
            service("reports", Usually::Interactive),
        ],
        amounts: Amounts::OfBytes,
        phases: &[&BEFORE, &AFTER],
        unit: 1.0,
    },
];

/// The workload of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

static SERVICES: [Kind; 5] = [
    Kind {
        service: 0,
        amount: 0.10,
        sizes: Sizes::all_of(WEB_SERVER),
        request_bytes: (200, 600),
        kept: true,
        burst: 3.0,
        ..Kind::PLAIN
    },
    Kind {
        service: 1,
        amount: 0.10,
        sizes: Sizes::all_of(STORAGE),
        request_bytes: (80, 120),
        kept: true,
        ..Kind::PLAIN
    },
    Kind {
        service: 2,
        amount: 0.15,
        sizes: Sizes::all_of(HADOOP),
        ..Kind::PLAIN
    },
    Kind {
        service: 3,
        amount: 0.25,
        sizes: Sizes::all_of(CACHE_FOLLOWER),
        kept: true,
        ..Kind::PLAIN
    },
    Kind {
        service: 4,
        amount: 0.40,
        sizes: Sizes::part_of(DATA_MINING, 0.94, 0.97),
        ..Kind::PLAIN
    },
];

const fn asked(amount: f64, sizes: Sizes, request_bytes: (u32, u32)) -> Kind {
    Kind {
        amount,
        sizes,
        request_bytes,
        kept: true,
        ..Kind::PLAIN
    }
}

const fn search(from: f64, to: f64) -> Sizes {
    Sizes::part_of(WEB_SEARCH, from, to)
}

/// Seven parts of the table, each with its own length of request; together they are the table again.
static REQUESTS: [Kind; 8] = [
    asked(0.9 * 0.30, search(0.00, 0.30), (60, 100)),
    asked(0.9 * 0.23, search(0.30, 0.53), (110, 160)),
    asked(0.9 * 0.12, search(0.53, 0.65), (170, 220)),
    asked(0.9 * 0.15, search(0.65, 0.80), (230, 300)),
    asked(0.9 * 0.10, search(0.80, 0.90), (310, 380)),
    asked(0.9 * 0.07, search(0.90, 0.97), (390, 460)),
    asked(0.9 * 0.03, search(0.97, 1.00), (470, 540)),
    asked(0.1, Sizes::all_of(WEB_SEARCH), (60, 540)),
];

const fn to(network: &'static [u8], pool: u8, amount: f64, sizes: Sizes) -> Kind {
    Kind {
        amount,
        sizes,
        networks: network,
        pool,
        kept: true,
        ..Kind::PLAIN
    }
}

/// Parts of the table by network; the last network keeps two sorts of connections. A seventh is by chance.
static NETWORKS: [Kind; 8] = [
    to(&[0], 0, 6.0 / 7.0 * 0.30, search(0.00, 0.30)),
    to(&[1], 0, 6.0 / 7.0 * 0.23, search(0.30, 0.53)),
    to(&[2], 0, 6.0 / 7.0 * 0.17, search(0.53, 0.70)),
    to(&[3], 0, 6.0 / 7.0 * 0.10, search(0.70, 0.80)),
    to(&[4], 0, 6.0 / 7.0 * 0.10, search(0.80, 0.90)),
    to(&[5], 0, 6.0 / 7.0 * 0.05, search(0.10, 0.40)),
    to(&[5], 1, 6.0 / 7.0 * 0.05, search(0.90, 1.00)),
    to(&[0, 1, 2, 3, 4, 5], 0, 1.0 / 7.0, Sizes::all_of(WEB_SEARCH)),
];

const PAGES: Kind = Kind {
    service: 0,
    amount: 0.15,
    sizes: search(0.0, 0.6),
    kept: true,
    burst: 3.0,
    ..Kind::PLAIN
};
const FILES: Kind = Kind {
    service: 1,
    amount: 0.65,
    sizes: search(0.8, 1.0),
    ..Kind::PLAIN
};
const REPORTS: Kind = Kind {
    service: 2,
    amount: 0.20,
    request_bytes: (150, 200),
    kept: true,
    ..Kind::PLAIN
};

static BEFORE: [Kind; 3] = [
    PAGES,
    FILES,
    Kind {
        sizes: search(0.3, 0.6),
        ..REPORTS
    },
];

static AFTER: [Kind; 3] = [
    PAGES,
    Kind {
        amount: 0.45,
        ..FILES
    },
    Kind {
        amount: 0.40,
        sizes: search(0.85, 0.98),
        ..REPORTS
    },
];
