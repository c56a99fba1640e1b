//! Packets as the kernel hands them over; the only raw reads.

use aya_ebpf::{
    helpers::generated::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};
use scheduler_ebpf::packet::Packet;

/// The linear part of a packet, and the length of the whole.
pub(crate) struct Frame {
    start: usize,
    end: usize,
    frame_bytes: usize,
}

/// Bytes that headers may take: Ethernet, two tags, IPv6 with extensions, TCP.
const HEADER_BYTES: u32 = 192;

impl Frame {
    /// The packet at the TC hook; pulls the headers into the linear part where they are not.
    #[inline(always)]
    pub(crate) fn of_skb(ctx: &TcContext) -> Self {
        let frame_bytes = ctx.len();
        let wanted = if frame_bytes < HEADER_BYTES {
            frame_bytes
        } else {
            HEADER_BYTES
        };
        if ctx.data() + 54 > ctx.data_end() && (ctx.data_end() - ctx.data()) < wanted as usize {
            // If it fails, parsing finds the packet truncated and it passes.
            let _pulled = ctx.pull_data(wanted);
        }
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
            frame_bytes: frame_bytes as usize,
        }
    }

    /// The packet at the XDP hook.
    #[inline(always)]
    pub(crate) fn of_xdp(ctx: &XdpContext) -> Self {
        // SAFETY: the context is the one this program was called with; the helper only reads it.
        let frame_bytes = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
            frame_bytes: frame_bytes as usize,
        }
    }

    #[inline(always)]
    fn checked(&self, offset: usize, bytes: usize) -> Option<usize> {
        let at = self.start + offset;
        if at + bytes > self.end {
            return None;
        }
        Some(at)
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    #[inline(always)]
    fn u16_at(&self, offset: usize) -> Option<u16> {
        let at = self.checked(offset, 2)?;
        // SAFETY: `checked` compared the end of the read with the packet's, and so does the verifier;
        // headers begin at even offsets of an even start.
        Some(u16::from_be(unsafe { *(at as *const u16) }))
    }

    #[inline(always)]
    fn u32_at(&self, offset: usize) -> Option<u32> {
        let at = self.checked(offset, 4)?;
        // Two halves: behind an Ethernet header a word is aligned to 2 only.
        // SAFETY: in bounds as above.
        let high = u16::from_be(unsafe { *(at as *const u16) });
        // SAFETY: in bounds as above.
        let low = u16::from_be(unsafe { *((at + 2) as *const u16) });
        Some(u32::from(high) << 16 | u32::from(low))
    }
}
