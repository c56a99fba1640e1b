//! Packets as the kernel hands them over; the only raw reads.

use aya_ebpf::{
    helpers::generated::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};
use scheduler_ebpf::packet::{Head, Packet};

/// The linear part of a packet from some header on, and the length of the whole.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// Where the frame begins.
    base: usize,
    /// Where the header begins.
    start: usize,
    end: usize,
    /// From `base` to `start`.
    offset: usize,
    /// Of the whole frame, what is not linear included.
    frame_bytes: usize,
    /// A number in map memory.
    forgotten: *mut u32,
}

/// Headers begin below this: two rows of four extension headers of 2 KiB end before.
const MAX_OFFSET: usize = 0x7fff;

/// Bytes that headers may take: Ethernet, two tags, IPv6 with extensions, TCP; or with a tunnel around.
const HEADER_BYTES: u32 = 192;

impl Frame {
    /// The packet at the TC hook, of which no more can be read than what is linear.
    #[inline(always)]
    pub(crate) fn of_linear_skb(ctx: &TcContext, forgotten: &mut u32) -> Self {
        Self {
            base: ctx.data(),
            start: ctx.data(),
            end: ctx.data_end(),
            offset: 0,
            frame_bytes: ctx.len() as usize,
            forgotten,
        }
    }

    /// The packet at the XDP hook as if it were no longer than what is linear: without the call that tells its length.
    #[inline(always)]
    pub(crate) fn of_linear_xdp(ctx: &XdpContext, forgotten: &mut u32) -> Self {
        Self {
            base: ctx.data(),
            start: ctx.data(),
            end: ctx.data_end(),
            offset: 0,
            frame_bytes: ctx.data_end() - ctx.data(),
            forgotten,
        }
    }

    /// The packet at the TC hook; pulls the headers into the linear part where they are not.
    #[inline(always)]
    pub(crate) fn of_skb(ctx: &TcContext, forgotten: &mut u32) -> Self {
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
        Self::of_linear_skb(ctx, forgotten)
    }

    /// The packet at the XDP hook.
    #[inline(always)]
    pub(crate) fn of_xdp(ctx: &XdpContext, forgotten: &mut u32) -> Self {
        // SAFETY: the context is the one this program was called with; the helper only reads it.
        let frame_bytes = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
        Self {
            base: ctx.data(),
            start: ctx.data(),
            end: ctx.data_end(),
            offset: 0,
            frame_bytes: frame_bytes as usize,
            forgotten,
        }
    }

    #[inline(always)]
    fn checked(self, offset: usize, bytes: usize) -> Option<usize> {
        let at = self.start + offset;
        if at + bytes > self.end {
            return None;
        }
        Some(at)
    }
}

/// Bytes behind a pointer that was compared with the packet's end.
#[derive(Clone, Copy)]
pub(crate) struct Checked<const N: usize>(usize);

impl<const N: usize> Head<N> for Checked<N> {
    #[inline(always)]
    fn u16<const AT: usize>(self) -> u16 {
        const {
            assert!(
                AT + 2 <= N && AT.is_multiple_of(2),
                "past the bytes that were checked"
            )
        };
        // SAFETY: `Frame::head` found `N` bytes there, from an even address on.
        u16::from_be(unsafe { *((self.0 + AT) as *const u16) })
    }
}

impl Packet for Frame {
    type Head<const N: usize> = Checked<N>;

    #[inline(always)]
    fn head<const N: usize>(self) -> Option<Checked<N>> {
        self.checked(0, N).map(Checked)
    }

    #[inline(always)]
    fn frame_bytes(self) -> usize {
        self.frame_bytes.saturating_sub(self.offset)
    }

    #[inline(always)]
    fn u16_at(self, offset: usize) -> Option<u16> {
        let at = self.checked(offset, 2)?;
        // SAFETY: `checked` compared the end of the read with the packet's, and so does the verifier;
        // headers begin at even offsets of an even start.
        Some(u16::from_be(unsafe { *(at as *const u16) }))
    }

    #[inline(always)]
    fn u32_at(self, offset: usize) -> Option<u32> {
        let at = self.checked(offset, 4)?;
        // Two halves: behind an Ethernet header a word is aligned to 2 only.
        // SAFETY: in bounds as above.
        let high = u16::from_be(unsafe { *(at as *const u16) });
        // SAFETY: in bounds as above.
        let low = u16::from_be(unsafe { *((at + 2) as *const u16) });
        Some(u32::from(high) << 16 | u32::from(low))
    }

    #[inline(always)]
    fn behind(self, bytes: usize) -> Self {
        Self {
            start: self.start + bytes,
            offset: self.offset + bytes,
            ..self
        }
    }

    #[inline(always)]
    fn skip(self, bytes: usize) -> Self {
        // Through a map value, where the verifier keeps no track of numbers.
        // SAFETY: the pointer is to this program's own work space on this CPU, made from a reference.
        unsafe {
            self.forgotten.write_volatile((self.offset + bytes) as u32);
        }
        // SAFETY: as above.
        let offset = unsafe { self.forgotten.read_volatile() } as usize & MAX_OFFSET;
        let mut sum = self.base + offset;
        let sum = &raw mut sum;
        // Through the stack, where the compiler keeps no track of sums.
        // SAFETY: the pointer is to the local variable.
        let start = unsafe { sum.read_volatile() };
        Self {
            start,
            offset,
            ..self
        }
    }
}
