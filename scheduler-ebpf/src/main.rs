//! Entry points of the kernel programs: parse, flow, features, tree, verdict, act.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic addition, see `ingress`")]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the attribute macros wrap the entry points"
)]

mod action;
mod clock;
mod context;
mod count;
mod general;
mod ingress;
mod interface;
mod maps;
mod page;
mod path;
mod sample;
mod secret;
mod socket;
mod tree;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// TC on egress: classifies. Always lets the packet and the programs behind this one go on.
#[classifier]
pub fn treeline_egress(ctx: TcContext) -> i32 {
    path::egress::<()>(&ctx);
    TC_ACT_UNSPEC
}

/// Run by userspace before a load: tells ticks and time.
#[classifier]
pub fn treeline_clock(ctx: TcContext) -> i32 {
    clock::tell(ctx.skb.skb);
    TC_ACT_UNSPEC
}

/// XDP on ingress: observes, and acts on the band where the interface is set up for it.
#[xdp(frags)]
pub fn treeline_ingress(ctx: XdpContext) -> u32 {
    match path::ingress::<()>(&ctx) {
        Some((judged, headers)) => ingress::act(&ctx, judged, headers),
        None => XDP_PASS,
    }
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
