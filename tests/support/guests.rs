//! Programs of others on an interface, which count what passes them.

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, Xdp,
        tc::{NlOptions, TcAttachOptions, qdisc_add_clsact},
        xdp::XdpMode,
    },
};
use bed::netns::Namespace;
use scheduler_common::class::BANDS;

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("TREELINE_OBJECTS"), "/treeline-guests"));

/// Entries of the guests' map.
pub(crate) const AT_TC: u32 = 0;
pub(crate) const AT_XDP: u32 = 1;
pub(crate) const WITH_CLASS: u32 = 2;
const WITH_BAND: u32 = 8;

/// A load of the guests; dropping it detaches those that hang on links.
pub(crate) struct Guests {
    ebpf: Ebpf,
    seen: PerCpuArray<MapData, u64>,
}

impl Guests {
    pub(crate) fn load() -> Self {
        let mut ebpf = Ebpf::load(OBJECT).unwrap();
        let seen = ebpf.take_map("SEEN").expect("the guests count");
        let tc: &mut SchedClassifier = ebpf.program_mut("guest_tc").unwrap().try_into().unwrap();
        tc.load().unwrap();
        let xdp: &mut Xdp = ebpf.program_mut("guest_xdp").unwrap().try_into().unwrap();
        xdp.load().unwrap();
        Self {
            ebpf,
            seen: seen.try_into().unwrap(),
        }
    }

    /// Attaches the TC program by TCX, or by a filter of this priority.
    pub(crate) fn at_tc(
        &mut self,
        (namespace, interface): (&Namespace, &str),
        side: TcAttachType,
        priority: Option<u16>,
    ) {
        let program: &mut SchedClassifier = self
            .ebpf
            .program_mut("guest_tc")
            .unwrap()
            .try_into()
            .unwrap();
        let options = match priority {
            None => TcAttachOptions::TcxOrder(LinkOrder::default()),
            Some(priority) => TcAttachOptions::Netlink(NlOptions {
                priority,
                ..NlOptions::default()
            }),
        };
        namespace
            .enter(|| {
                if priority.is_some() {
                    // It may be there already.
                    drop(qdisc_add_clsact(interface));
                }
                Ok(program
                    .attach_with_options(interface, side, options)
                    .map(drop)?)
            })
            .unwrap();
    }

    /// Attaches the XDP program.
    pub(crate) fn at_xdp(&mut self, namespace: &Namespace, interface: &str) {
        let program: &mut Xdp = self
            .ebpf
            .program_mut("guest_xdp")
            .unwrap()
            .try_into()
            .unwrap();
        namespace
            .enter(|| Ok(program.attach(interface, XdpMode::Default).map(drop)?))
            .unwrap();
    }

    /// A count by CPU.
    pub(crate) fn by_cpu(&self, entry: u32) -> Vec<u64> {
        self.seen.get(&entry, 0).unwrap().to_vec()
    }

    /// A count, all CPUs together.
    pub(crate) fn count(&self, entry: u32) -> u64 {
        self.by_cpu(entry).iter().sum()
    }

    /// Packets by the band that their metadata held.
    pub(crate) fn bands(&self) -> [u64; BANDS] {
        std::array::from_fn(|band| self.count(WITH_BAND + band as u32))
    }
}
