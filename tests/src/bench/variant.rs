//! What is measured: a program, a packet and the state that it meets.

use scheduler_common::names;

use crate::trees::Forest;

/// IP version of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// A UDP packet of 22 bytes of payload from a service port: 64 bytes over IPv4.
    ///
    /// UDP, because each repetition of it brings new bytes; a TCP packet would be a retransmission.
    pub(crate) fn frame(self) -> Vec<u8> {
        const PAYLOAD: usize = 22;
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        let udp_bytes = 8 + PAYLOAD as u8;
        match self {
            Self::V4 => {
                frame.extend([
                    8,
                    0,
                    0x45,
                    0,
                    0,
                    20 + udp_bytes,
                    0,
                    0,
                    0x40,
                    0,
                    64,
                    17,
                    0,
                    0,
                ]);
                frame.extend([10, 1, 0, 1, 10, 2, 0, 2]);
            }
            Self::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, udp_bytes, 17, 64]);
                frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
            }
        }
        frame.extend(5004u16.to_be_bytes());
        frame.extend(16_384u16.to_be_bytes());
        frame.extend([0, udp_bytes, 0, 0]);
        frame.extend([0x5a; PAYLOAD]);
        frame
    }
}

/// Where the program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Tc,
    Xdp,
}

impl Hook {
    pub(crate) const BOTH: [Self; 2] = [Self::Tc, Self::Xdp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }
}

/// What each packet makes treeline do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A program that is not treeline's.
    Other,
    /// A part of treeline's path, in flows that are as for [`Work::Cached`].
    Rung,
    /// Nothing but the counts: the message is past its decision points.
    Cached,
    /// A decision by these trees.
    Decision(Forest),
    /// The same, and a sample.
    Sampled(Forest),
    /// A new entry, and a decision.
    New(Forest),
    /// The walk alone.
    Walk(Forest),
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) program: String,
    /// Treeline's own pinned program, not the bench's build of its path.
    pub(crate) pinned: bool,
    pub(crate) family: Family,
    pub(crate) work: Work,
}

impl Variant {
    /// A program of the bench's object.
    pub(crate) fn object(
        (name, program): (&str, &str),
        (family, hook): (Family, Hook),
        work: Work,
    ) -> Self {
        Self {
            name: format!("{name}_{}_{}", family.name(), hook.name()),
            program: format!("{program}_{}", hook.name()),
            pinned: false,
            family,
            work,
        }
    }

    /// A program of treeline as it is pinned.
    pub(crate) fn pinned(name: &str, (family, hook): (Family, Hook), work: Work) -> Self {
        let program = match hook {
            Hook::Tc => names::EGRESS,
            Hook::Xdp => names::INGRESS,
        };
        Self {
            name: format!("{name}_{}_{}", family.name(), hook.name()),
            program: program.to_owned(),
            pinned: true,
            family,
            work,
        }
    }
}
