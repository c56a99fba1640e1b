//! Bench-only programs: treeline's own path with spread keys, and its peers.
//!
//! Treeline's modules are compiled in unchanged by path, so what is measured with many flows is the
//! same source as what runs. Each job exists for TC and for XDP.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the attribute macros wrap the entry points"
)]

#[path = "../action.rs"]
mod action;
#[path = "../context.rs"]
mod context;
#[path = "../count.rs"]
mod count;
mod lookups;
#[path = "../maps.rs"]
mod maps;
#[path = "../path.rs"]
mod path;
#[path = "../sample.rs"]
mod sample;
mod sink;
mod spread;
mod textbook;
#[path = "../tree.rs"]
mod tree;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use scheduler_common::{
    counter::{Counter, Skip},
    sample::Hook,
    settings::{Settings, settings_flags},
};
use scheduler_ebpf::{
    flow,
    parse::{self, Headers, How},
};

use crate::{context::Frame, maps::Scratch};

#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[xdp(frags)]
pub fn empty_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// A job that works on parsed headers and answers with a class.
macro_rules! job {
    ($tc:ident, $xdp:ident, $spread:literal, $work:path) => {
        #[classifier]
        pub fn $tc(ctx: TcContext) -> i32 {
            if let Ok(headers) = headers_tc(&ctx, $spread)
                && let Some(class) = $work(headers)
            {
                // SAFETY: the context is the one this program was called with, and a TC program
                // may write the field.
                unsafe {
                    (*ctx.skb.skb).priority = class;
                }
            }
            TC_ACT_UNSPEC
        }

        #[xdp(frags)]
        pub fn $xdp(ctx: XdpContext) -> u32 {
            if let Ok(headers) = headers_xdp(&ctx, $spread) {
                sink::word($work(headers).unwrap_or(0));
            }
            XDP_PASS
        }
    };
}

job!(parse_tc, parse_xdp, false, parsed);
job!(spread_tc, spread_xdp, true, parsed);
job!(key_tc, key_xdp, true, keyed);
job!(textbook_tc, textbook_xdp, true, textbook::classify);
job!(lookups_tc, lookups_xdp, true, lookups::classify);

#[inline(always)]
fn parsed(_headers: &Headers) -> Option<u32> {
    None
}

#[inline(always)]
fn keyed(headers: &Headers) -> Option<u32> {
    let (key, _) = flow::key(headers, 1);
    sink::key(key);
    None
}

#[inline(always)]
fn headers_tc(ctx: &TcContext, with_spread: bool) -> Result<&'static Headers, Skip> {
    let scratch = path::scratch(Hook::Egress)?;
    // SAFETY: the context is the one this program was called with.
    let ethertype = u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16);
    let frame = Frame::of_skb(ctx, &mut scratch.forgotten);
    let plain = How {
        ethertype,
        network_frames: false,
        inner: false,
    };
    parse::read(frame, plain, &mut scratch.parsed)?;
    let scratch = path::joined(scratch);
    if with_spread {
        spread::apply(scratch);
    }
    Ok(&scratch.parsed.headers)
}

#[inline(always)]
fn headers_xdp(ctx: &XdpContext, with_spread: bool) -> Result<&'static Headers, Skip> {
    let scratch = path::scratch(Hook::Ingress)?;
    let frame = Frame::of_xdp(ctx, &mut scratch.forgotten);
    let plain = How {
        ethertype: 0,
        network_frames: false,
        inner: false,
    };
    parse::read(frame, plain, &mut scratch.parsed)?;
    let scratch = path::joined(scratch);
    if with_spread {
        spread::apply(scratch);
    }
    Ok(&scratch.parsed.headers)
}

/// As `treeline_egress`, with the spread between parsing and accounting.
#[classifier]
pub fn treeline_tc(ctx: TcContext) -> i32 {
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
    let frame = Frame::of_skb(ctx, &mut scratch.forgotten);
    parse::read(frame, how(settings, ethertype), &mut scratch.parsed)?;
    let scratch = path::joined(scratch);
    // SAFETY: the context is the one this program was called with.
    let ifindex = unsafe { (*skb).ifindex };
    // SAFETY: as above.
    scratch.step.segments = unsafe { (*skb).gso_segs }.max(1);
    spread::apply(scratch);
    let band = path::account(ctx, settings, scratch, (Hook::Egress, ifindex))?;
    action::apply(ctx, settings, band);
    Ok(())
}

/// As `treeline_ingress`, with the spread between parsing and accounting.
#[xdp(frags)]
pub fn treeline_xdp(ctx: XdpContext) -> u32 {
    count::one(Counter::IngressPackets);
    if let Err(skip) = ingress(&ctx) {
        count::skip(skip);
    }
    XDP_PASS
}

#[inline(always)]
fn ingress(ctx: &XdpContext) -> Result<(), Skip> {
    let settings = path::settings()?;
    let scratch: &mut Scratch = path::scratch(Hook::Ingress)?;
    let frame = Frame::of_xdp(ctx, &mut scratch.forgotten);
    parse::read(frame, how(settings, 0), &mut scratch.parsed)?;
    let scratch = path::joined(scratch);
    scratch.step.segments = 1;
    let ifindex = ctx.ingress_ifindex() as u32;
    spread::apply(scratch);
    path::account(ctx, settings, scratch, (Hook::Ingress, ifindex))?;
    Ok(())
}

#[inline(always)]
const fn how(settings: &Settings, ethertype: u16) -> How {
    How {
        ethertype,
        network_frames: settings.flags & settings_flags::NETWORK_FRAMES != 0,
        inner: settings.flags & settings_flags::INNER != 0,
    }
}

/// Twelve random features a packet: what `walk_tc` does besides walking.
#[classifier]
pub fn features_tc(_ctx: TcContext) -> i32 {
    if let Some(features) = spread::features() {
        sink::features(&features);
    }
    TC_ACT_UNSPEC
}

/// The walk over random features, so on a path that no predictor knows.
#[classifier]
pub fn walk_tc(_ctx: TcContext) -> i32 {
    if let Some(features) = spread::features() {
        sink::features(&features);
        if let Some(prediction) = tree::predict(&features) {
            sink::word(prediction.leaf.pack());
        }
    }
    TC_ACT_UNSPEC
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
