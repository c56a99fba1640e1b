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
mod context;
mod count;
mod ingress;
mod interface;
mod maps;
mod path;
mod sample;
mod tree;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use scheduler_common::{
    counter::{Counter, Skip},
    ingress::{Interface, interface_flags},
    sample::Hook,
    settings::{Settings, settings_flags},
};
use scheduler_ebpf::parse::{self, How};

use crate::{context::Frame, ingress::Judged};

/// TC on egress: classifies. Always lets the packet and the programs behind this one go on.
#[classifier]
pub fn treeline_egress(ctx: TcContext) -> i32 {
    count::one(Counter::EgressPackets);
    if let Err(skip) = egress(&ctx) {
        count::skip(skip);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn egress(ctx: &TcContext) -> Result<(), Skip> {
    let settings = path::settings()?;
    let scratch = path::scratch(Hook::Egress)?;
    let skb = ctx.skb.skb;
    // SAFETY: the context is the one this program was called with.
    let ethertype = u16::from_be(unsafe { (*skb).protocol } as u16);
    // SAFETY: the context is the one this program was called with.
    let interface = interface::of(settings, unsafe { (*skb).ifindex }, &mut scratch.forgotten);
    let frame = Frame::of_skb(ctx, &mut scratch.forgotten);
    parse::read(
        frame,
        how(settings, &interface, ethertype),
        &mut scratch.parsed,
    )?;
    let scratch = path::joined(scratch);
    let ifindex = interface.key_ifindex;
    // SAFETY: as above.
    scratch.step.segments = unsafe { (*skb).gso_segs }.max(1);
    let band = path::account(ctx, settings, scratch, (Hook::Egress, ifindex))?;
    action::apply(ctx, settings, band);
    Ok(())
}

#[inline(always)]
const fn how(settings: &Settings, interface: &Interface, ethertype: u16) -> How {
    How {
        ethertype,
        network_frames: settings.flags & settings_flags::NETWORK_FRAMES != 0
            || interface.flags & interface_flags::NETWORK_FRAMES != 0,
        inner: settings.flags & settings_flags::INNER != 0,
    }
}

/// XDP on ingress: observes, and acts on the band where the interface is set up for it.
#[xdp(frags)]
pub fn treeline_ingress(ctx: XdpContext) -> u32 {
    count::one(Counter::IngressPackets);
    match ingress(&ctx) {
        Ok(verdict) => verdict,
        Err(skip) => {
            count::skip(skip);
            XDP_PASS
        }
    }
}

#[inline(always)]
fn ingress(ctx: &XdpContext) -> Result<u32, Skip> {
    let settings = path::settings()?;
    let scratch = path::scratch(Hook::Ingress)?;
    let ifindex = ctx.ingress_ifindex() as u32;
    let interface = interface::of(settings, ifindex, &mut scratch.forgotten);
    let frame = Frame::of_xdp(ctx, &mut scratch.forgotten);
    parse::read(frame, how(settings, &interface, 0), &mut scratch.parsed)?;
    let scratch = path::joined(scratch);
    scratch.step.segments = 1;
    let ifindex = interface.key_ifindex;
    let band = path::account(ctx, settings, scratch, (Hook::Ingress, ifindex))?;
    let judged = Judged {
        flags: interface.flags,
        band,
        control: scratch.step.control,
    };
    Ok(ingress::act(ctx, judged, &scratch.parsed.headers))
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
