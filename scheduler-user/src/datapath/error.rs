//! What can go wrong between the agent and the kernel programs.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError, tc::TcError},
};
use nix::errno::Errno;
use scheduler_common::{ABI_VERSION, tree::TableError};

use crate::instance::{BPFFS, InstanceError};

/// Why the kernel programs could not be loaded, reached or changed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object was refused before a program was loaded.
    #[error(
        "the kernel does not accept treeline's maps; a kernel with BTF, 6.1 or later, is needed"
    )]
    Load {
        /// What aya said.
        source: Box<EbpfError>,
    },
    /// The flow table is larger than the memory that the kernel can give.
    #[error(
        "the kernel has no {mib} MiB for a table of {flow_entries} flows; ask for fewer with --flows"
    )]
    NoMemory {
        /// Flows that the table was to have room for.
        flow_entries: u32,
        /// Its size.
        mib: u64,
        /// What aya said.
        source: Box<EbpfError>,
    },
    /// The object lacks a part: a broken build.
    #[error("the eBPF object has no {name}; this build of treeline is broken")]
    MissingInObject {
        /// The part.
        name: &'static str,
    },
    /// A program was refused or could not be reached.
    #[error("cannot {op}")]
    Program {
        /// What was attempted.
        op: &'static str,
        /// Why it failed.
        source: Box<ProgramError>,
    },
    /// A map could not be read or written.
    #[error("cannot use map {name}; `treeline down` and `up` start afresh")]
    Map {
        /// The map.
        name: &'static str,
        /// Why it failed.
        source: MapError,
    },
    /// An earlier version loaded the programs and did not pin their log.
    #[error("there is no {}; `treeline down` and `up` load this version's programs", path.display())]
    NoLog {
        /// Where it would be.
        path: PathBuf,
    },
    /// The programs' log could not be opened.
    #[error("cannot read the programs' log at {}", path.display())]
    Log {
        /// Its ring.
        path: PathBuf,
        /// Why it failed.
        source: Box<aya_log::Error>,
    },
    /// A pin could not be made.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why it failed.
        source: PinError,
    },
    /// A pinned link could not be opened.
    #[error("cannot open link {}", path.display())]
    Link {
        /// The pin.
        path: PathBuf,
        /// Why it failed.
        source: LinkError,
    },
    /// The `clsact` hook failed.
    #[error("cannot {op} on {interface}")]
    Clsact {
        /// What was attempted.
        op: &'static str,
        /// The interface.
        interface: String,
        /// Why it failed.
        source: TcError,
    },
    /// The instance's files.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The file system for pins is not mounted, and can't be by this process.
    #[error(
        "cannot mount bpffs on {BPFFS}, which takes CAP_SYS_ADMIN: have root do it once by `mount -t bpf bpf {BPFFS}`"
    )]
    NoBpffs {
        /// Why not.
        source: Errno,
    },
    /// A file operation failed.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was attempted.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another version of treeline pinned the programs.
    #[error(
        "the running programs speak ABI version {found}, this treeline {ABI_VERSION}; \
         `treeline down --all` and `up` replace them"
    )]
    AbiVersion {
        /// The version of what is pinned.
        found: u32,
    },
    /// A CPU that this machine does not have.
    #[error("there is no CPU {cpu} here: they are 0 to {}; see `lscpu`", present.saturating_sub(1))]
    NoSuchCpu {
        /// The CPU that was named.
        cpu: u32,
        /// How many there are.
        present: u32,
    },
    /// A table that the kernel must not see.
    #[error("the model's table is not sound: {fault:?}")]
    UnsoundTable {
        /// The fault.
        fault: TableError,
    },
}
