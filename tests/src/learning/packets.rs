//! Datagrams for the pinned egress program, one flow as long as another.

use anyhow::Result;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use scheduler_common::names;
use treeline::instance::Instance;

/// Ethernet, IPv4 and UDP.
const HEADER_BYTES: u16 = 14 + 20 + 8;
/// Services that the flows belong to.
const SERVICES: u32 = 8;

/// An instance's egress program, run on packets of our own by the kernel's test interface.
pub(crate) struct Egress(SchedClassifier);

impl Egress {
    pub(crate) fn open(instance: &Instance) -> Result<Self> {
        let pin = instance.pins().join("programs").join(names::EGRESS);
        Ok(Self(SchedClassifier::from_pin(pin)?))
    }

    /// Runs the next packet of a flow.
    pub(crate) fn push(&self, frame: &[u8]) -> Result<()> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        self.0.test_run(options)?;
        Ok(())
    }
}

/// A datagram of flow number `flow`, from one of a few services to a client of its own.
pub(crate) fn datagram(flow: u32, payload_bytes: u16) -> Vec<u8> {
    let client = flow.to_be_bytes();
    let udp_bytes = 8 + payload_bytes;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend((20 + udp_bytes).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 99, 0, 1]);
    frame.extend([10, client[1], client[2], client[3]]);
    frame.extend((5000 + (flow % SERVICES) as u16).to_be_bytes());
    frame.extend((40_000 + (flow % 20_000) as u16).to_be_bytes());
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(usize::from(HEADER_BYTES + payload_bytes), 0x5a);
    frame
}
