//! treeline's contract between the kernel programs and the agent.
//!
//! Only types that cross that border live here, with the few algorithms that both sides must
//! run in exactly the same way ([`tree::Table::walk`], [`class::Cuts::band_of`]). All of them are
//! `#[repr(C)]`, made of integers and arrays of integers, without implicit padding; their sizes are
//! asserted at compile time. A change of any layout, of the feature list or of the meaning of a
//! field is a new [`ABI_VERSION`].
//!
//! | module | holds |
//! |---|---|
//! | [`act`] | DSCP and pace of a band |
//! | [`class`] | bands, the cut points between them, the value of `skb->priority` |
//! | [`counter`] | every way a packet can leave the programs, one index each |
//! | [`features`] | the feature list: index, name, unit |
//! | [`flow`] | the flow table: entries, sets, secret |
//! | [`history`] | what finished messages of a service or peer were |
//! | [`ingress`] | facts of an interface, acts on ingress |
//! | [`replay`] | what a replay tells the programs of a packet |
//! | [`sample`] | one record of the ring buffer |
//! | [`settings`] | what userspace tells the programs |
//! | [`tree`] | the tree table and its walk |
#![cfg_attr(not(any(test, feature = "user")), no_std)]
#![deny(unsafe_code)]

pub mod act;
pub mod class;
pub mod counter;
pub mod features;
pub mod flow;
pub mod history;
pub mod ingress;
#[cfg(feature = "user")]
mod pod;
pub mod replay;
pub mod sample;
pub mod settings;
pub mod tree;

/// Version of everything in this crate; programs and agent must agree on it.
pub const ABI_VERSION: u32 = 6;

/// Names of the maps and programs in the eBPF object and, alike, of their pins.
pub mod names {
    /// Settings, one entry ([`crate::settings::Settings`]).
    pub const SETTINGS: &str = "SETTINGS";
    /// Secret of this load, one entry ([`crate::flow::Hashing`]).
    pub const HASHING: &str = "HASHING";
    /// Flow table: hash of the set → [`crate::flow::FlowSet`].
    pub const FLOWS: &str = "FLOWS";
    /// What of a flow few packets need: number of its entry → [`crate::flow::Story`].
    pub const STORIES: &str = "STORIES";
    /// Sizes of finished messages ([`crate::history::HistoryEntry`]).
    pub const HISTORY: &str = "HISTORY";
    /// Array of inner maps: the slot of the active [`crate::tree::Table`], and that of the watched one.
    pub const MODEL: &str = "MODEL";
    /// The slots: one is active, one may be watched, one is spare.
    pub const SLOTS: [&str; 3] = ["SLOT_A", "SLOT_B", "SLOT_C"];
    /// Key in [`MODEL`] of the model that acts.
    pub const MODEL_ACTS: u32 = 0;
    /// Key in [`MODEL`] of the model that is only watched.
    pub const MODEL_IN_SHADOW: u32 = 1;
    /// Ring buffer of [`crate::sample::Sample`].
    pub const SAMPLES: &str = "SAMPLES";
    /// Per-CPU counts, budget and work space by [`crate::sample::Hook`] ([`crate::counter::PerCpu`]).
    pub const PER_CPU: &str = "PER_CPU";
    /// Facts of interfaces ([`crate::ingress::Interface`]) by index.
    pub const INTERFACES: &str = "INTERFACES";
    /// Rate limits of the bands on ingress ([`crate::ingress::Policer`]).
    pub const POLICERS: &str = "POLICERS";
    /// CPU of each slot of the urgent and of the bulk group.
    pub const STEERING: &str = "STEERING";
    /// The CPUs' queues.
    pub const CPUS: &str = "CPUS";
    /// Per-CPU counters by [`crate::ingress::IngressCounter`].
    pub const INGRESS_COUNTERS: &str = "INGRESS_COUNTERS";
    /// Every map that is pinned.
    pub const MAPS: [&str; 16] = [
        SETTINGS,
        HASHING,
        FLOWS,
        STORIES,
        HISTORY,
        MODEL,
        SLOTS[0],
        SLOTS[1],
        SLOTS[2],
        SAMPLES,
        PER_CPU,
        INTERFACES,
        POLICERS,
        STEERING,
        CPUS,
        INGRESS_COUNTERS,
    ];
    /// Of the replaying programs only: what is not in a packet's bytes ([`crate::replay::Moment`]).
    pub const MOMENT: &str = "MOMENT";
    /// TC program on egress.
    pub const EGRESS: &str = "treeline_egress";
    /// TC program that is run once, to learn what a tick is.
    pub const CLOCK: &str = "treeline_clock";
    /// XDP program on ingress.
    pub const INGRESS: &str = "treeline_ingress";
}
