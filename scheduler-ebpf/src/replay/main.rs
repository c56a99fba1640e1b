//! The programs as they are, but for the clock: for captures.
//!
//! Treeline's modules are compiled in unchanged by path. Only `clock` is another one, so the programs
//! that schedule pay nothing for being replayable.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the attribute macros wrap the entry points"
)]

#[path = "../action.rs"]
mod action;
mod clock;
#[path = "../context.rs"]
mod context;
#[path = "../count.rs"]
mod count;
#[path = "../general.rs"]
mod general;
#[path = "../interface.rs"]
mod interface;
#[path = "../maps.rs"]
mod maps;
#[path = "../page.rs"]
mod page;
#[expect(dead_code, reason = "a replay does not act on ingress")]
#[path = "../path.rs"]
mod path;
#[path = "../sample.rs"]
mod sample;
#[path = "../secret.rs"]
mod secret;
#[path = "../socket.rs"]
mod socket;
#[path = "../tree.rs"]
mod tree;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::clock::Captured;

/// As `treeline_egress`.
#[classifier]
pub fn treeline_egress(ctx: TcContext) -> i32 {
    path::egress::<Captured>(&ctx);
    TC_ACT_UNSPEC
}

/// As `treeline_ingress`, without its acts.
#[xdp(frags)]
pub fn treeline_ingress(ctx: XdpContext) -> u32 {
    path::ingress::<Captured>(&ctx);
    XDP_PASS
}

/// A panic path in the object is a loop without end, which the verifier refuses.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel requires a licence compatible with the GPL of a program that uses its helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
