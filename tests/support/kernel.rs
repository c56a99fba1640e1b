//! The real programs, run on one packet at a time by the kernel's test interface.

use std::io;

use aya::{
    maps::{Array, Map, MapData, RingBuf},
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use aya_obj::programs::XdpAttachType;
use scheduler_common::{
    counter::Counter,
    flow::{DEFAULT_ENTRIES, Flow, FlowSet, Hashing, Story, story_of},
    names,
    sample::{Hook, Sample},
    settings::Settings,
};
use scheduler_ebpf::{
    flow,
    hash::{self, Identity},
    parse::Headers,
};
use treeline::datapath::{Datapath, Origin};
use zerocopy::FromBytes as _;

use super::{OwnInstance, packets::Passing};

/// The device that a test run pretends the packet to be on: the loopback.
pub(crate) const TEST_IFINDEX: u32 = 1;
/// What `skb->priority` is before the program runs.
pub(crate) const UNTOUCHED: u32 = 0x0bad_cafe;

/// Size and offsets of `struct __sk_buff` (kernel 6.18 `include/uapi/linux/bpf.h`).
const SKB_BYTES: usize = 192;
const SKB_PRIORITY: usize = 32;
const SKB_GSO_SEGS: usize = 164;

/// Both programs, opened by their pins.
#[derive(Debug)]
pub(crate) struct Programs {
    egress: SchedClassifier,
    ingress: Xdp,
}

/// Loaded and pinned programs that no interface uses.
pub(crate) struct Kernel {
    pub(crate) datapath: Datapath,
    programs: Programs,
    flows: Array<MapData, FlowSet>,
    stories: Array<MapData, Story>,
    pub(crate) hashing: Hashing,
    samples: RingBuf<MapData>,
    counted: Vec<u64>,
    // Last: what is above holds files below its directories.
    instance: OwnInstance,
}

/// What one packet did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) verdict: u32,
    /// `skb->priority` afterwards; [`UNTOUCHED`] at XDP.
    pub(crate) priority: u32,
    /// What was added to each counter, in index order.
    pub(crate) counted: Vec<u64>,
    pub(crate) samples: Vec<Sample>,
}

impl Programs {
    fn open(instance: &OwnInstance) -> Self {
        let pin = |name| instance.pins().join("programs").join(name);
        Self {
            egress: SchedClassifier::from_pin(pin(names::EGRESS)).unwrap(),
            ingress: Xdp::from_pin(pin(names::INGRESS), XdpAttachType::Interface).unwrap(),
        }
    }

    /// Runs one packet; the answer is the verdict and `skb->priority`.
    ///
    /// # Errors
    ///
    /// When the kernel does not make a packet of these bytes at all.
    pub(crate) fn push(&self, passing: &Passing) -> io::Result<(u32, u32)> {
        self.push_often(passing, 1)
    }

    /// Runs one packet `times` in a row without coming back; the answer is that of the last time.
    ///
    /// # Errors
    ///
    /// As for [`Self::push`].
    pub(crate) fn push_often(&self, passing: &Passing, times: u32) -> io::Result<(u32, u32)> {
        let mut options = TestRunOptions::new();
        options.repeat = times;
        options.data_in = Some(&passing.frame);
        let mut context = [0; SKB_BYTES];
        let mut after = [0; SKB_BYTES];
        set(&mut context, SKB_PRIORITY, UNTOUCHED);
        after.copy_from_slice(&context);
        let outcome = match passing.hook {
            Hook::Egress => {
                set(&mut context, SKB_GSO_SEGS, passing.segments);
                options.ctx_in = Some(&context);
                options.ctx_out = Some(&mut after);
                self.egress.test_run(options)
            }
            Hook::Ingress => self.ingress.test_run(options),
        };
        match outcome {
            Ok(result) => Ok((result.return_value, get(&after, SKB_PRIORITY))),
            Err(ProgramError::SyscallError(error)) => Err(error.io_error),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Kernel {
    pub(crate) fn load(settings: &Settings) -> Self {
        Self::with_entries(settings, DEFAULT_ENTRIES)
    }

    /// With a flow table of `entries`, or the next power of two.
    pub(crate) fn with_entries(settings: &Settings, entries: u32) -> Self {
        let instance = OwnInstance::new();
        let (datapath, origin) = Datapath::open_or_load(&instance, settings, entries).unwrap();
        assert_eq!(origin, Origin::Loaded);
        let map = |name| {
            let data = MapData::from_pin(instance.pins().join("maps").join(name)).unwrap();
            Map::Array(data)
        };
        let mut kernel = Self {
            programs: Programs::open(&instance),
            flows: Array::try_from(map(names::FLOWS)).unwrap(),
            stories: Array::try_from(map(names::STORIES)).unwrap(),
            hashing: datapath.hashing().unwrap(),
            samples: datapath.samples().unwrap(),
            counted: Vec::new(),
            datapath,
            instance,
        };
        kernel.counted = kernel.counters();
        kernel
    }

    /// Runs one packet, and tells what it changed.
    ///
    /// # Errors
    ///
    /// When the kernel does not make a packet of these bytes at all.
    pub(crate) fn run(&mut self, passing: &Passing) -> io::Result<Ran> {
        let (verdict, priority) = self.push(passing)?;
        let now = self.counters();
        let counted = now.iter().zip(&self.counted).map(|(b, a)| b - a).collect();
        self.counted = now;
        Ok(Ran {
            verdict,
            priority,
            counted,
            samples: self.drain(),
        })
    }

    /// Runs one packet; the answer is the verdict and `skb->priority`.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub(crate) fn push(&self, passing: &Passing) -> io::Result<(u32, u32)> {
        self.programs.push(passing)
    }

    /// Runs one packet `times` in a row without coming back.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub(crate) fn push_often(&self, passing: &Passing, times: u32) -> io::Result<(u32, u32)> {
        self.programs.push_often(passing, times)
    }

    /// The programs once more, for another thread.
    pub(crate) fn programs(&self) -> Programs {
        Programs::open(&self.instance)
    }

    /// Entry and story of a flow.
    pub(crate) fn flow(&self, tag: u64) -> Option<(Flow, Story)> {
        let index = hash::set_of(tag, &self.hashing);
        let set = self.set(index);
        let way = flow::find(&set.flows, tag, hash::first_way(tag))?;
        let story = self.stories.get(&story_of(index, way as u32), 0);
        Some((set.flows[way], story.unwrap()))
    }

    /// One set of the flow table.
    pub(crate) fn set(&self, index: u32) -> FlowSet {
        self.flows.get(&index, 0).unwrap()
    }

    /// Turns the flow's clock back, as if it had been silent for longer by `ticks`.
    pub(crate) fn age(&mut self, tag: u64, ticks: u32) {
        let index = hash::set_of(tag, &self.hashing);
        let mut set = self.set(index);
        let way = flow::find(&set.flows, tag, hash::first_way(tag)).expect("the flow has an entry");
        for half in &mut set.flows[way].halves {
            half.last_ticks = half.last_ticks.wrapping_sub(ticks);
        }
        self.flows.set(index, set, 0).unwrap();
    }

    /// Which flow the packet belongs to, and its direction.
    pub(crate) fn identify(&self, headers: &Headers) -> Identity {
        hash::identify(headers, TEST_IFINDEX, &self.hashing)
    }

    /// Samples that have come since the last call.
    pub(crate) fn drain(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        while let Some(record) = self.samples.next() {
            samples.push(Sample::read_from_bytes(&record).expect("a record is a sample"));
        }
        samples
    }

    /// A counter's value, all CPUs together.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.counters()[counter as usize]
    }

    fn counters(&self) -> Vec<u64> {
        let counters = self.datapath.counters().unwrap();
        counters.into_iter().map(|(_, count)| count).collect()
    }
}

fn set(context: &mut [u8], at: usize, value: u32) {
    context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn get(context: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(context[at..at + 4].try_into().expect("four bytes"))
}
