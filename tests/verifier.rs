//! What the verifier has to do for the programs, held to a budget.

use aya::programs::ProgramInfo;
use scheduler_common::{flow::DEFAULT_ENTRIES, names, settings::Settings};
use treeline::datapath::Datapath;

use crate::support::{OwnInstance, privileged};

/// The most instructions that the verifier may walk through for each program.
///
/// Well above what was measured. Egress, two walks: 111 841 on 6.1, 94 381 on 6.18; not yet on 6.12 and 7.3.
/// Ingress: 46 130 on 6.1, 42 877 on 6.18. The kernel itself gives up at a million.
const BUDGETS: [(&str, u32); 2] = [(names::EGRESS, 200_000), (names::INGRESS, 70_000)];

#[test]
fn the_verifier_walks_no_more_instructions_than_the_budget() {
    if !privileged() {
        return;
    }
    let instance = OwnInstance::new();
    Datapath::open_or_load(&instance, &Settings::default(), DEFAULT_ENTRIES).unwrap();
    for (name, budget) in BUDGETS {
        let pin = instance.pins().join("programs").join(name);
        let info = ProgramInfo::from_pin(pin).unwrap();
        let count = info
            .verified_instruction_count()
            .expect("kernels from 5.16 on tell it");
        // `cargo xtask test --vm` reads this line.
        println!("verified: {name} {count}");
        assert!(
            count <= budget,
            "{name}: {count} instructions, {budget} are the budget"
        );
    }
}
