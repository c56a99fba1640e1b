//! Strict priority between bands, in order or fairly within one.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use scheduler_common::class::BANDS;

use super::{Job, Segment};

/// How messages of one band share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Within {
    /// In the order in which they came into the band: one queue, as `pfifo` leaves have it.
    #[default]
    Fifo,
    /// At equal rates, as `fq_codel` leaves come near to.
    Fair,
}

/// What waits in one band.
enum Queue {
    Fifo(VecDeque<(usize, f64)>),
    Fair {
        /// What each of the waiting has got since the band was last empty.
        attained: f64,
        /// Ends of segments on that scale. The bits of floats from zero up have the floats' own order.
        ends: BinaryHeap<Reverse<(u64, usize)>>,
    },
}

impl Queue {
    fn new(within: Within) -> Self {
        match within {
            Within::Fifo => Self::Fifo(VecDeque::new()),
            Within::Fair => Self::Fair {
                attained: 0.0,
                ends: BinaryHeap::new(),
            },
        }
    }

    fn push(&mut self, job: usize, bytes: f64) {
        match self {
            Self::Fifo(queue) => queue.push_back((job, bytes)),
            Self::Fair { attained, ends } => {
                if ends.is_empty() {
                    *attained = 0.0;
                }
                ends.push(Reverse(((*attained + bytes).to_bits(), job)));
            }
        }
    }

    /// Bytes to send before a segment ends; `None` if nothing waits.
    fn to_next_end(&self) -> Option<f64> {
        match self {
            Self::Fifo(queue) => queue.front().map(|(_, left)| *left),
            Self::Fair { attained, ends } => ends.peek().map(|Reverse((end, _))| {
                (f64::from_bits(*end) - attained).max(0.0) * ends.len() as f64
            }),
        }
    }

    fn serve(&mut self, bytes: f64) {
        match self {
            Self::Fifo(queue) => {
                if let Some((_, left)) = queue.front_mut() {
                    *left -= bytes;
                }
            }
            Self::Fair { attained, ends } => *attained += bytes / ends.len().max(1) as f64,
        }
    }

    /// Takes out the job whose segment has ended.
    fn pop(&mut self) -> Option<usize> {
        match self {
            Self::Fifo(queue) => queue.pop_front().map(|(job, _)| job),
            Self::Fair { attained, ends } => ends.pop().map(|Reverse((end, job))| {
                *attained = f64::from_bits(end);
                job
            }),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Fifo(queue) => queue.is_empty(),
            Self::Fair { ends, .. } => ends.is_empty(),
        }
    }
}

struct Link<'a, P> {
    jobs: &'a [Job],
    path: P,
    queues: [Queue; BANDS],
    /// Bands in which something waits, a bit each.
    waiting: u32,
    /// Segments of each job that were queued so far.
    queued: Vec<u32>,
    now: f64,
    took: Vec<f64>,
}

/// All jobs in one band.
pub(super) fn whole(jobs: &[Job], within: Within) -> Vec<f64> {
    let segments: Vec<Segment> = jobs
        .iter()
        .map(|job| Segment {
            bytes: job.bytes,
            band: 0,
        })
        .collect();
    let numbered: Vec<Job> = jobs
        .iter()
        .enumerate()
        .map(|(message, job)| Job { message, ..*job })
        .collect();
    replay(&numbered, within, |job| {
        &segments[job.message..=job.message]
    })
}

/// Jobs go through the bands of their paths.
pub(super) fn replay<'a, P>(jobs: &[Job], within: Within, path: P) -> Vec<f64>
where
    P: Fn(&Job) -> &'a [Segment],
{
    let mut link = Link {
        jobs,
        path,
        queues: std::array::from_fn(|_| Queue::new(within)),
        waiting: 0,
        queued: vec![0; jobs.len()],
        now: 0.0,
        took: vec![0.0; jobs.len()],
    };
    for (index, job) in jobs.iter().enumerate() {
        link.run_until(job.arrival);
        link.now = job.arrival;
        link.queue_next(index);
    }
    link.run_until(f64::INFINITY);
    link.took
}

impl<'a, P: Fn(&Job) -> &'a [Segment]> Link<'_, P> {
    fn run_until(&mut self, until: f64) {
        while self.waiting != 0 {
            let band = self.waiting.trailing_zeros() as usize;
            let queue = &mut self.queues[band];
            let Some(bytes) = queue.to_next_end() else {
                self.waiting &= !(1 << band);
                continue;
            };
            if self.now + bytes > until {
                queue.serve(until - self.now);
                return;
            }
            queue.serve(bytes);
            let ended = queue.pop();
            if queue.is_empty() {
                self.waiting &= !(1 << band);
            }
            self.now += bytes;
            if let Some(job) = ended {
                self.queue_next(job);
            }
        }
    }

    /// Puts the job behind those of its next band, or lets it go.
    fn queue_next(&mut self, job: usize) {
        let place = self.queued[job] as usize;
        match (self.path)(&self.jobs[job]).get(place) {
            Some(segment) => {
                self.queued[job] += 1;
                self.queues[usize::from(segment.band)].push(job, segment.bytes);
                self.waiting |= 1 << segment.band;
            }
            None => self.took[job] = self.now - self.jobs[job].arrival,
        }
    }
}
