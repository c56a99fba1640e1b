//! treeline's userspace: the agent and what the command line needs.
#![forbid(unsafe_code)]

pub mod datapath;
pub mod dataset;
pub mod instance;
pub mod model;
pub mod qdisc;
pub mod training;
