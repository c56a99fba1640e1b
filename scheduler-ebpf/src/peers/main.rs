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
#[expect(dead_code, reason = "the bench takes what treeline's own object tells")]
#[path = "../clock.rs"]
mod clock;
#[path = "../context.rs"]
mod context;
#[path = "../count.rs"]
mod count;
#[path = "../general.rs"]
mod general;
#[path = "../interface.rs"]
mod interface;
mod ladder;
mod lookups;
#[path = "../maps.rs"]
mod maps;
#[path = "../page.rs"]
mod page;
#[expect(dead_code, reason = "the bench's programs do not act on ingress")]
#[path = "../path.rs"]
mod path;
mod qosify;
mod replay;
#[path = "../sample.rs"]
mod sample;
#[path = "../secret.rs"]
mod secret;
mod sink;
#[path = "../socket.rs"]
mod socket;
mod spread;
mod textbook;
#[path = "../tree.rs"]
mod tree;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use scheduler_common::sample::Hook;
use scheduler_ebpf::{
    common,
    parse::{Headers, How},
};

use crate::{context::Frame, maps::Own, path::Between, textbook::Tuple};

#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[xdp(frags)]
pub fn empty_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// A job at TC that works on parsed headers and answers with a class.
macro_rules! job_tc {
    ($tc:ident, $between:ty, $work:path) => {
        #[classifier]
        pub fn $tc(ctx: TcContext) -> i32 {
            if let Some(headers) = headers_tc::<$between>(&ctx)
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
    };
}

/// The same at TC and at XDP.
macro_rules! job {
    ($tc:ident, $xdp:ident, $between:ty, $work:path) => {
        job_tc!($tc, $between, $work);

        #[xdp(frags)]
        pub fn $xdp(ctx: XdpContext) -> u32 {
            if let Some(headers) = headers_xdp::<$between>(&ctx) {
                sink::word($work(headers).unwrap_or(0));
            }
            XDP_PASS
        }
    };
}

job!(parse_tc, parse_xdp, (), parsed);
job!(spread_tc, spread_xdp, spread::On, parsed);
job!(key_tc, key_xdp, spread::On, keyed);
job!(hash_tc, hash_xdp, spread::On, ladder::hashed);
job!(touch_tc, touch_xdp, spread::On, ladder::touched);
job_tc!(found_tc, spread::On, ladder::found);
job_tc!(timed_tc, spread::On, ladder::timed);
job_tc!(added_tc, spread::On, ladder::added);
job_tc!(fine_tc, spread::On, ladder::fine);
job_tc!(storied_tc, spread::On, ladder::storied);
job_tc!(entered_tc, spread::On, ladder::entered);
job_tc!(entered_fine_tc, spread::On, ladder::entered_fine);
job_tc!(entered_storied_tc, spread::On, ladder::entered_storied);
job_tc!(entered_recalled_tc, spread::On, ladder::entered_recalled);
job!(textbook_tc, textbook_xdp, spread::On, textbook::classify);
job!(lookups_tc, lookups_xdp, spread::On, lookups::classify);
job_tc!(replay_draw_tc, replay::On, parsed);
job_tc!(replay_textbook_tc, replay::On, textbook::classify);
job_tc!(replay_lookups_tc, replay::On, lookups::classify);

#[inline(always)]
fn parsed(_headers: &Headers) -> Option<u32> {
    None
}

#[inline(always)]
fn keyed(headers: &Headers) -> Option<u32> {
    sink::tuple(Tuple::of(headers));
    None
}

#[inline(always)]
fn headers_tc<B: Between>(ctx: &TcContext) -> Option<&'static Headers> {
    let own = path::per_cpu(Hook::Egress)?;
    // SAFETY: the context is the one this program was called with.
    let ethertype = u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16);
    let frame = Frame::of_skb(ctx, &mut own.scratch.forgotten);
    headers::<B>(frame, ethertype, own)
}

#[inline(always)]
fn headers_xdp<B: Between>(ctx: &XdpContext) -> Option<&'static Headers> {
    let own = path::per_cpu(Hook::Ingress)?;
    let frame = Frame::of_xdp(ctx, &mut own.scratch.forgotten);
    headers::<B>(frame, 0, own)
}

/// Parses as a textbook would: the usual packets and no others.
#[inline(always)]
fn headers<B: Between>(
    frame: Frame,
    ethertype: u16,
    own: &'static mut Own,
) -> Option<&'static Headers> {
    let plain = How {
        ethertype,
        network_frames: false,
        inner: false,
    };
    if !common::read(frame, plain, &mut own.scratch.parsed) {
        return None;
    }
    let own = path::joined(own);
    B::apply(&mut own.scratch);
    Some(&own.scratch.parsed.headers)
}

/// What qosify's heuristics make of a packet.
#[classifier]
pub fn qosify_tc(ctx: TcContext) -> i32 {
    let class = qosify::classify(&ctx);
    // SAFETY: the context is the one this program was called with, and a TC program may write the field.
    unsafe {
        (*ctx.skb.skb).priority = class;
    }
    TC_ACT_UNSPEC
}

/// As `treeline_egress`, with the replay's next headers between parsing and accounting.
#[classifier]
pub fn replay_treeline_tc(ctx: TcContext) -> i32 {
    path::egress::<replay::On>(&ctx);
    TC_ACT_UNSPEC
}

/// As `treeline_egress`, with the spread between parsing and accounting.
#[classifier]
pub fn treeline_tc(ctx: TcContext) -> i32 {
    path::egress::<spread::On>(&ctx);
    TC_ACT_UNSPEC
}

/// As `treeline_ingress`, with the spread between parsing and accounting.
#[xdp(frags)]
pub fn treeline_xdp(ctx: XdpContext) -> u32 {
    path::ingress::<spread::On>(&ctx);
    XDP_PASS
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
        if let Some(own) = path::per_cpu(Hook::Egress)
            && let Some(prediction) = tree::predict(&features, &mut own.kept.counts)
        {
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
