//! treeline's userspace: the agent and what the command line needs.
//!
//! # Theory of operation
//!
//! The **model's path**, one module a step: [`sampling`] reads the ring buffer, [`dataset`] joins
//! decision points with finished messages and keeps a bounded window, [`training`] learns on its
//! earlier part and judges on its later one, [`model`] is what was learned as our own versioned
//! file, [`deploy`] hands it to the kernel, [`handover`] numbers it and keeps account. [`learning`] runs that cycle, [`agent`] the tasks around it.
//!
//! The **interface's life**: [`uplink`] brings it up and down with [`datapath`] (programs, maps, pins,
//! hooks), [`acts`] (what a band does to a packet), [`qdisc`] (the hierarchy that the bands are served by) and [`ingress`]
//! (what comes in); [`instance`] knows where
//! everything is kept, [`status`] gathers it, [`explain`] tells of one flow, [`journal`] writes down what was done and why, [`report`] makes a [`page`] of it.
#![forbid(unsafe_code)]

pub mod acts;
pub mod advice;
pub mod agent;
pub mod canary;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod dataset;
pub mod deploy;
pub mod doctor;
pub mod drift;
pub mod explain;

pub mod handover;
pub mod ingress;
pub mod instance;
pub mod journal;
pub mod learning;
pub mod metrics;
pub mod model;
pub mod page;
pub mod qdisc;
pub mod record;
pub mod replay;
pub mod report;
pub mod sampling;
pub mod shown;
pub mod simulate;
pub mod status;
pub mod top;
pub mod training;
pub mod uplink;
