//! The programs tried: loaded, verified and compiled, attached nowhere.

use aya::{
    EbpfLoader,
    programs::{ProgramInfo, SchedClassifier, Xdp},
};
use scheduler_common::names;

use super::{DatapathError, OBJECT, program, refused};

/// What the kernel made of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Instructions that the verifier went through, both programs; absent before kernel 5.16.
    pub verified: Option<u32>,
    /// Bytes of machine code, both programs; 0 where they are interpreted.
    pub machine_code_bytes: u64,
    /// Whether the kernel's type information tells what an application has written and not yet sent.
    pub asks_sockets: bool,
}

/// Loads both programs with the smallest tables, and lets them go again.
///
/// # Errors
/// What the kernel objects to.
pub fn trial() -> Result<Trial, DatapathError> {
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(names::FLOWS, 1)
        .map_max_entries(names::STORIES, 1)
        .map_max_entries(names::CPUS, 1)
        .load(OBJECT)
        .map_err(|source| refused(source, 1))?;
    let fault = |op| {
        move |source| DatapathError::Program {
            op,
            source: Box::new(source),
        }
    };
    let egress: &mut SchedClassifier = program(&mut ebpf, names::EGRESS)?;
    egress.load().map_err(fault("load the egress program"))?;
    let egress = egress.info().map_err(fault("look at the egress program"))?;
    let ingress: &mut Xdp = program(&mut ebpf, names::INGRESS)?;
    ingress.load().map_err(fault("load the ingress program"))?;
    let ingress = ingress
        .info()
        .map_err(fault("look at the ingress program"))?;
    let both = [&egress, &ingress];
    let counts: Option<Vec<u32>> = both
        .map(ProgramInfo::verified_instruction_count)
        .into_iter()
        .collect();
    Ok(Trial {
        asks_sockets: super::types::member_offset("tcp_sock", "write_seq").is_some(),
        verified: counts.map(|counts| counts.iter().sum()),
        machine_code_bytes: both.map(|info| u64::from(info.size_jitted())).iter().sum(),
    })
}
