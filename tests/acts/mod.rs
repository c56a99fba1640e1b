//! What a band does to its packets: priority, DSCP, pace, queue.

mod programs;
mod qdiscs;
mod queues;
mod traffic;
mod wire;
