//! Every map of the programs.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, CpuMap, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use scheduler_common::{
    class::BANDS,
    counter::{Kept, PerCpu, SCRATCH_WORDS},
    features::Features,
    flow::{DEFAULT_ENTRIES, FlowSet, Hashing, Story, WAYS},
    history::{HISTORY_ENTRIES, HistoryEntry},
    ingress::{IngressCounter, Interface, Policer, STEER_SLOTS},
    sample::Sample,
    settings::Settings,
    tree::Table,
};
use scheduler_ebpf::{
    features::Socket,
    flow::Step,
    fragment::{FirstFragment, FragmentKey},
    parse::Parsed,
};

use crate::tree::Answers;

const DEFAULT_SETS: usize = DEFAULT_ENTRIES as usize / WAYS;
const MAX_FRAGMENTED: usize = 1024;
pub(crate) const SAMPLE_RING_BYTES: usize = 1 << 21;

/// Key: 0. Value: settings. Writer: userspace, at load and on change. Reader: both programs, once a
/// packet. Size: there is one policy.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

/// Key: 0. Value: what the programs were loaded with, see [`crate::secret`]. Writer: userspace, once. Reader: userspace,
/// which finds flows by it. Size: one load, one secret.
#[btf_map]
pub(crate) static HASHING: Array<Hashing, 1> = Array::new();

/// Key: hash of the flow. Value: a set of entries. Writer and reader: both programs, each packet. Size: set at
/// load; a set is four cache lines, aligned by the flag, which userspace may also map.
#[btf_map]
pub(crate) static FLOWS: Array<FlowSet, DEFAULT_SETS, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Key: number of the entry. Value: the story of its flow. Writer and reader: both programs, at decision points and
/// where messages end. Size: set at load, as many as entries; a cache line each, aligned by the flag.
#[btf_map]
pub(crate) static STORIES: Array<Story, { DEFAULT_ENTRIES as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Key: hash of what messages have in common. Value: their mean size. Writer: both programs, at ends of messages.
/// Reader: both, at starts. Size: 16 Ki services and (service, network) pairs; the newer takes the place.
#[btf_map]
pub(crate) static HISTORY: Array<HistoryEntry, HISTORY_ENTRIES> = Array::new();

/// Key: 0 for the model that acts, 1 for one that is only watched. Value: one of the slots below. Writer: userspace: the update is one pointer, and the call returns
/// only after an RCU grace period, so no packet sees a mix. Reader: the egress program, at
/// decision points. Size: these two.
#[btf_map]
pub(crate) static MODEL: ArrayOfMaps<Array<Table, 1>, 2> = ArrayOfMaps::new();

/// Key: 0. Value: a model. Writer: userspace, only while the slot is spare. Reader: the egress program through
/// `MODEL`. Declared here and not made by userspace, because kernel 6.1 takes an inner map only with
/// the type information of the outer map's template.
#[btf_map]
pub(crate) static SLOT_A: Array<Table, 1> = Array::new();

/// Another slot.
#[btf_map]
pub(crate) static SLOT_B: Array<Table, 1> = Array::new();

/// The third: one acts, one may be watched, one is spare.
#[btf_map]
pub(crate) static SLOT_C: Array<Table, 1> = Array::new();

/// Writer: both programs, for sampled flows. Reader: the agent. Size: 10 485 samples, more than
/// two CPUs may emit in one window; beyond that samples are lost, and counted.
#[btf_map]
pub(crate) static SAMPLES: RingBuf<Sample, SAMPLE_RING_BYTES> = RingBuf::new();

/// Key: hook ([`scheduler_common::sample::Hook`]). Value: all that the program keeps on this CPU. Writer: the
/// program at that hook, which is not re-entered on a CPU. Reader: userspace, which sums counts. Size: one a hook.
#[btf_map]
pub(crate) static PER_CPU: PerCpuArray<PerCpu, 2> = PerCpuArray::new();

/// What one packet is worked out in. It lives in map memory so that the verifier takes its values for
/// unknown and joins the ways that lead to them.
pub(crate) struct Scratch {
    /// The packet's headers.
    pub(crate) parsed: Parsed,
    /// What it did to its flow.
    pub(crate) step: Step,
    /// What its socket says.
    pub(crate) socket: Socket,
    /// A description of it.
    pub(crate) features: Features,
    /// What the models say.
    pub(crate) answers: Answers,
    /// Fine clock, where it was read.
    pub(crate) now_ns: u64,
    /// Interface whose name the flow bears.
    pub(crate) ifindex: u32,
    /// Bits of [`scheduler_common::ingress::interface_flags`].
    pub(crate) interface_flags: u32,
    /// Where the parser makes the verifier forget an offset.
    pub(crate) forgotten: u32,
}

const _: () = assert!(size_of::<Scratch>() <= 8 * SCRATCH_WORDS && align_of::<Scratch>() <= 8);

/// [`PerCpu`] as the programs see it.
#[repr(C)]
pub(crate) struct Own {
    /// What outlives a packet.
    pub(crate) kept: Kept,
    /// What one packet is worked out in.
    pub(crate) scratch: Scratch,
}

const _: () = assert!(size_of::<Own>() <= size_of::<PerCpu>() && align_of::<Own>() <= 8);

/// Key: fragmented packet. Value: what only its first fragment says. Writer: both programs, at first
/// fragments. Reader: both, at later ones. Size: what is under way at once; the least recently used makes
/// room.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FirstFragment, MAX_FRAGMENTED> =
    LruHashMap::new();

/// Key: band. Value: when the last paced packet of the band will have departed, ns. Writer and reader: the egress
/// program, where a band is paced. Size: the bands.
#[btf_map]
pub(crate) static PACED_UNTIL: Array<u64, BANDS> = Array::new();

/// Key: interface. Value: what is peculiar to it. Writer: userspace, when an interface comes or goes. Reader:
/// both programs, once a packet while the settings say that there are entries. Size: far more interfaces
/// than one host schedules.
#[btf_map]
pub(crate) static INTERFACES: HashMap<u32, Interface, 256> = HashMap::new();

/// Key: band. Value: its limit and how far it is spent. Writer: userspace sets the limits, the ingress
/// program spends. Reader: the ingress program. Size: the bands.
#[btf_map]
pub(crate) static POLICERS: Array<Policer, BANDS> = Array::new();

/// Key: group times [`STEER_SLOTS`] plus some bits of the flow's hash. Value: CPU. Writer: userspace.
/// Reader: the ingress program. Size: two groups.
#[btf_map]
pub(crate) static STEERING: Array<u32, { 2 * STEER_SLOTS as usize }> = Array::new();

/// Key: CPU. Value: its queue. Writer: userspace. Reader: the ingress program, by redirecting. Size: set
/// at load to the CPUs there are.
#[btf_map]
pub(crate) static CPUS: CpuMap<1> = CpuMap::new();

/// Key: [`IngressCounter`]. Value: count on this CPU. Writer: the ingress program. Reader: userspace, which
/// sums. Size: the list of counters.
#[btf_map]
pub(crate) static INGRESS_COUNTERS: PerCpuArray<u64, { IngressCounter::COUNT }> =
    PerCpuArray::new();
