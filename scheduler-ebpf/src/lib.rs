//! The packet's path as pure code: the same source runs in the kernel and in host tests.
//!
//! # Theory of operation
//!
//! Two programs see an interface: TC on egress decides, XDP on ingress observes. Both do the same
//! steps, one file each:
//!
//! 1. [`parse`]: bytes → [`parse::Headers`]; any doubt passes the packet, counted by reason.
//! 2. [`flow`]: headers → the flow's entry, in which both directions keep their current *message*
//!    (what a user waits for: a burst between turn-arounds or idle times).
//! 3. [`features`]: at decision points (packet 1, 2, 4, 8 … of a message and where its bytes pass
//!    a cut) the message is described as a vector of integers.
//! 4. `tree` (kernel half): the active model turns the vector into a predicted size.
//! 5. [`verdict`]: the larger of predicted size and bytes already sent gives the band, which only
//!    falls within a message; the first bytes go by bytes sent alone, and a [`stream`] stays on top as long as
//!    it is one.
//! 6. `action` (kernel half): band → `skb->priority`.
//!
//! Samples leave on the side (`sample`), every exit is counted (`count`). What needs helpers, maps or
//! raw pointers is in the binary's modules and built only with feature `kernel`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod common;
pub mod features;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod history;
mod link;
pub mod packet;
pub mod parse;
pub mod stream;
mod transport;
pub mod tunnel;
pub mod verdict;
