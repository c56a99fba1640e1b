//! Tests of the whole: kernel programs, agent and command line on a real kernel.
#![cfg(test)]
#![forbid(unsafe_code)]

mod bands;
mod captures;
mod cli;
mod learning;
mod lifecycle;
mod messages;
mod prog_run;
mod sampling;
mod support;
mod survival;
mod swap;
mod verifier;
