//! Test-only programs that stand for those of others on an interface.
//!
//! They count what passes them, by CPU and, where treeline has left it, by band.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the attribute macros wrap the entry points"
)]

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    btf_maps::PerCpuArray,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use scheduler_common::{
    class::BANDS,
    ingress::{METADATA_MAGIC, METADATA_VERSION, Metadata},
};

/// Entry of [`SEEN`] that counts packets at TC; those above are by band.
const AT_TC: u32 = 0;
/// Entry that counts packets at XDP.
const AT_XDP: u32 = 1;
/// Entry that counts packets that already had a class of treeline's.
const WITH_CLASS: u32 = 2;
/// First of the entries that count packets by the band in their metadata.
const WITH_BAND: u32 = 8;

/// Key: what was seen. Value: how often on this CPU. Writer: these programs. Reader: the tests.
#[btf_map]
pub(crate) static SEEN: PerCpuArray<u64, { WITH_BAND as usize + BANDS }> = PerCpuArray::new();

#[classifier]
pub fn guest_tc(ctx: TcContext) -> i32 {
    const MAJOR: u32 = 0x7e_0000;
    count(AT_TC);
    // SAFETY: the context is the one this program was called with.
    if unsafe { (*ctx.skb.skb).priority } & 0xffff_0000 == MAJOR {
        count(WITH_CLASS);
    }
    if let Some(band) = band(&ctx) {
        count(WITH_BAND + u32::from(band) % BANDS as u32);
    }
    TC_ACT_UNSPEC
}

#[xdp(frags)]
pub fn guest_xdp(_ctx: XdpContext) -> u32 {
    count(AT_XDP);
    XDP_PASS
}

/// The band that treeline has put in front of the packet.
#[inline(always)]
fn band(ctx: &TcContext) -> Option<u8> {
    // SAFETY: the context is the one this program was called with.
    let start = unsafe { (*ctx.skb.skb).data_meta } as usize;
    // SAFETY: as above.
    let end = unsafe { (*ctx.skb.skb).data } as usize;
    if start + size_of::<Metadata>() > end {
        return None;
    }
    // SAFETY: the bounds were compared just above, and the kernel aligns metadata to words.
    let metadata = unsafe { *(start as *const Metadata) };
    let known = metadata.magic == METADATA_MAGIC && metadata.version == METADATA_VERSION;
    known.then_some(metadata.band)
}

#[inline(always)]
fn count(index: u32) {
    if let Some(value) = SEEN.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's own value, and programs are not re-entered on a CPU.
        unsafe {
            *value += 1;
        }
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
