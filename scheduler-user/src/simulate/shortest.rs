//! Shortest remaining size first.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Job;

pub(super) fn replay(jobs: &[Job]) -> Vec<f64> {
    // By what is left; the bits of floats from zero up have the floats' own order.
    let mut waiting: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut took = vec![0.0; jobs.len()];
    let mut now = 0.0;
    for (index, job) in jobs.iter().enumerate() {
        run_until(job.arrival, (&mut now, &mut waiting), jobs, &mut took);
        now = job.arrival;
        waiting.push(Reverse((job.bytes.to_bits(), index)));
    }
    run_until(f64::INFINITY, (&mut now, &mut waiting), jobs, &mut took);
    took
}

fn run_until(
    until: f64,
    (now, waiting): (&mut f64, &mut BinaryHeap<Reverse<(u64, usize)>>),
    jobs: &[Job],
    took: &mut [f64],
) {
    while let Some(Reverse((left, job))) = waiting.pop() {
        let left = f64::from_bits(left);
        if *now + left > until {
            let left = (left - (until - *now)).max(0.0);
            waiting.push(Reverse((left.to_bits(), job)));
            return;
        }
        *now += left;
        took[job] = *now - jobs[job].arrival;
    }
}
