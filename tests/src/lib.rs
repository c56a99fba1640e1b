//! The test bed: namespaces, real traffic, schemes, statistics and reports.
//!
//! # Theory of operation
//!
//! A [`beds::Bed`] is two network namespaces joined by a veth pair, or three with a router in
//! the middle. The server's (the router's) end of the pair is the *uplink*: replies leave
//! through it, and a rate limiter on it makes the queue that schedulers compete over. [`workload`] (and [`mix`], the demo's) draws a list of messages from a seed, [`traffic`]
//! plays the same list over real TCP sockets once per scheme, [`scheme`] says which queueing
//! discipline and which marking stands on the uplink meanwhile, [`stats`] turns completion
//! times into figures, and [`report`] and [`page`] write them down. [`demo`] joins the steps.

#![forbid(unsafe_code)]

pub mod agent;
pub mod beds;
pub mod chart;
pub mod command;
pub mod demo;
pub mod figure;
pub mod machine;
pub mod mix;
pub mod netns;
pub mod openapi;
pub mod options;
pub mod page;
pub mod peers;
pub mod played;
pub mod report;
pub mod scheme;
pub mod stats;
pub mod thresholds;
pub mod traffic;
pub mod wait;
pub mod words;
pub mod workload;
