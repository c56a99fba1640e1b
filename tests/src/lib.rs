//! The test bed: namespaces, real traffic, schemes, statistics and reports.
//!
//! # Theory of operation
//!
//! A [`netns::Bed`] is two network namespaces joined by a veth pair. The server's end of the
//! pair is the *uplink*: replies leave through it, and a rate limiter on it makes the queue
//! that schedulers compete over. [`mix`] draws a list of arrivals from a seed, [`traffic`]
//! plays the same list over real TCP sockets once per scheme, [`scheme`] says which queueing
//! discipline and which marking stands on the uplink meanwhile, [`stats`] turns completion
//! times into figures, and [`report`] and [`page`] write them down. [`demo`] joins the steps.

#![forbid(unsafe_code)]

pub mod agent;
pub mod command;
pub mod demo;
pub mod machine;
pub mod mix;
pub mod netns;
pub mod options;
pub mod page;
pub mod peers;
pub mod report;
pub mod scheme;
pub mod stats;
pub mod traffic;
pub mod wait;
pub mod words;
