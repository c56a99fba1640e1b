//! What the verifier has to do for the programs, held to a budget.

use aya::programs::ProgramInfo;
use scheduler_common::{names, settings::Settings};
use treeline::datapath::Datapath;

use crate::support::{OwnInstance, privileged};

/// The most instructions that the verifier may walk through for each program.
///
/// About twice the most that was measured. Egress: 28 383 on 6.1, 33 789 on 6.12, 43 150 on 6.18,
/// 58 162 on 7.3. Ingress: 15 686, 15 454, 21 253, 15 419. The kernel itself gives up at a million.
const BUDGETS: [(&str, u32); 2] = [(names::EGRESS, 120_000), (names::INGRESS, 45_000)];

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
