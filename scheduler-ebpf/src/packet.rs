//! Checked reads of a packet, wherever its bytes are.

/// Bytes of a frame from some header on.
pub trait Packet: Copy {
    /// Bytes that are known to be there.
    type Head<const N: usize>: Head<N>;

    /// Bytes from here to the end of the frame; more than what can be read if the packet is not linear.
    fn frame_bytes(self) -> usize;

    /// The 16-bit number at `offset`, host order; `None` past the end of what can be read.
    ///
    /// Single bytes are read as halves of it: the verifier learns nothing from a check of one byte
    /// against the packet's end (kernel 6.18 `kernel/bpf/verifier.c`, `find_good_pkt_pointers`).
    fn u16_at(self, offset: usize) -> Option<u16>;

    /// The 32-bit number at `offset`, host order.
    fn u32_at(self, offset: usize) -> Option<u32>;

    /// The first `N` bytes, if they can be read: one check for all reads of them.
    fn head<const N: usize>(self) -> Option<Self::Head<N>>;

    /// The packet from `bytes` on, a number that is known when this is compiled.
    fn behind(self, bytes: usize) -> Self;

    /// The packet from `bytes` on.
    ///
    /// In the kernel neither the compiler nor the verifier knows how the number came about. The verifier
    /// follows every way through the parser to its end unless ways meet in one state, and it knows how
    /// far reads may go only by the pointer that was checked: a compiler that sees the sum computes it
    /// once for the check and again for the read.
    fn skip(self, bytes: usize) -> Self;
}

/// The first `N` bytes of a packet; an offset beyond them does not compile.
pub trait Head<const N: usize>: Copy {
    /// The 16-bit number at `AT`, host order.
    fn u16<const AT: usize>(self) -> u16;

    /// The 32-bit number at `AT`, host order.
    #[inline(always)]
    fn u32<const AT: usize, const NEXT: usize>(self) -> u32 {
        const { assert!(NEXT == AT + 2, "the second half follows the first") };
        u32::from(self.u16::<AT>()) << 16 | u32::from(self.u16::<NEXT>())
    }
}

impl<const N: usize> Head<N> for &[u8; N] {
    fn u16<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N, "past the bytes that were checked") };
        u16::from_be_bytes([self[AT], self[AT + 1]])
    }
}

impl<'a> Packet for &'a [u8] {
    type Head<const N: usize> = &'a [u8; N];

    fn head<const N: usize>(self) -> Option<&'a [u8; N]> {
        self.first_chunk()
    }

    fn frame_bytes(self) -> usize {
        self.len()
    }

    fn u16_at(self, offset: usize) -> Option<u16> {
        let bytes = self.get(offset..offset.checked_add(2)?)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn u32_at(self, offset: usize) -> Option<u32> {
        let bytes = self.get(offset..offset.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    fn behind(self, bytes: usize) -> Self {
        self.get(bytes..).unwrap_or_default()
    }

    fn skip(self, bytes: usize) -> Self {
        self.behind(bytes)
    }
}
