//! Tests of the whole: kernel programs, agent and command line on a real kernel.
#![cfg(test)]
#![forbid(unsafe_code)]

mod acts;
mod bands;
mod canary;
mod captures;
mod cli;
mod coexistence;
mod config;
mod control;
mod devices;
mod docs;
mod doctor;
mod explain;
mod flood;
mod forecast;
mod ingress;
mod ingress_acts;
mod learning;
mod lifecycle;
mod logs;
mod messages;
mod monitoring;
mod observe;
mod package;
mod plan;
mod prog_run;
mod record;
mod registry;
mod replay;
mod report;
mod sampling;
mod shadow;
mod socket;
mod support;
mod survival;
mod swap;
mod table;
mod top;
mod verifier;
