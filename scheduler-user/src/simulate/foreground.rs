//! Least attained service first: those that have got least share the link.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Job;

/// Jobs that have got equally much.
struct Group {
    attained: f64,
    /// By size; the bits of floats from zero up have the floats' own order.
    jobs: BinaryHeap<Reverse<(u64, usize)>>,
}

/// What happens next in the group that is served.
enum Next {
    Done,
    Merged,
}

pub(super) fn replay(jobs: &[Job]) -> Vec<f64> {
    // Those that have got least stand last.
    let mut groups: Vec<Group> = Vec::new();
    let mut took = vec![0.0; jobs.len()];
    let mut now = 0.0;
    for (index, job) in jobs.iter().enumerate() {
        run_until(job.arrival, (&mut now, &mut groups), jobs, &mut took);
        now = job.arrival;
        groups.push(Group {
            attained: 0.0,
            jobs: BinaryHeap::from([Reverse((job.bytes.to_bits(), index))]),
        });
    }
    run_until(f64::INFINITY, (&mut now, &mut groups), jobs, &mut took);
    took
}

fn run_until(
    until: f64,
    (now, groups): (&mut f64, &mut Vec<Group>),
    jobs: &[Job],
    took: &mut [f64],
) {
    while let Some(served) = groups.last() {
        let Some(Reverse((size, smallest))) = served.jobs.peek().copied() else {
            groups.pop();
            continue;
        };
        let above = groups.len().checked_sub(2).map(|place| &groups[place]);
        let size = f64::from_bits(size);
        let (goal, next) = match above {
            Some(above) if above.attained < size => (above.attained, Next::Merged),
            _ => (size, Next::Done),
        };
        let sharing = served.jobs.len() as f64;
        let bytes = (goal - served.attained).max(0.0) * sharing;
        let place = groups.len() - 1;
        if *now + bytes > until {
            groups[place].attained += (until - *now) / sharing;
            return;
        }
        *now += bytes;
        groups[place].attained = goal;
        match next {
            Next::Done => {
                groups[place].jobs.pop();
                took[smallest] = *now - jobs[smallest].arrival;
            }
            Next::Merged => merge_last(groups),
        }
    }
}

/// The smaller heap goes into the larger one, so that a job moves O(log n) times.
fn merge_last(groups: &mut Vec<Group>) {
    let Some(mut last) = groups.pop() else { return };
    if let Some(into) = groups.last_mut() {
        if into.jobs.len() < last.jobs.len() {
            std::mem::swap(&mut into.jobs, &mut last.jobs);
        }
        into.jobs.append(&mut last.jobs);
    }
}
