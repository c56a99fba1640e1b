//! `treeline top`: what goes on now, once a second.
//!
//! # Theory of operation
//!
//! A [`reading::Reading`] is what stands in counters at one moment; two of them make a [`view::View`], which is what is shown, on the
//! screen ([`screen`]) or as JSON. [`state`] is what keys change. Nothing is kept beyond the latest two readings, and nothing on
//! the host is changed but that the kernel measures the run time of BPF programs while this is open.

mod reading;
mod run;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub use self::{
    run::{TopError, once, run},
    view::{SCHEMA, View},
};
