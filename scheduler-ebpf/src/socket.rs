//! What the local socket says that a packet comes from.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_tcp_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skc_to_tcp_sock, bpf_tcp_sock},
    programs::{TcContext, XdpContext},
};
use scheduler_ebpf::{features::Socket, parse::TCP};

/// Offset of `write_seq` in the kernel's `struct tcp_sock`, or [`UNKNOWN`]. Set before the programs are loaded,
/// from the kernel's own type information.
#[unsafe(no_mangle)]
static WRITE_SEQ_OFFSET: u32 = UNKNOWN;
/// No number that a program has elsewhere: LLVM merges constants of one value, so a static of 0 would be the very
/// bytes that a map is looked up with at key 0, and setting it would set both.
const UNKNOWN: u32 = 0xffff_fffd;

/// Where a packet may come from a socket of this host.
pub(crate) trait Sender {
    /// Asks the socket of a packet of `protocol`; without one `socket` says so.
    fn ask(&self, protocol: u8, socket: &mut Socket);
}

impl Sender for XdpContext {
    #[inline(always)]
    fn ask(&self, _protocol: u8, socket: &mut Socket) {
        forget(socket);
    }
}

impl Sender for TcContext {
    #[inline(always)]
    fn ask(&self, protocol: u8, socket: &mut Socket) {
        forget(socket);
        if protocol != TCP {
            return;
        }
        let Some((sk, tcp)) = tcp_of(self) else {
            return;
        };
        // SAFETY: the verifier knows the pointer for one to a socket of the kernel, and it is not null.
        let tcp = unsafe { &*tcp };
        socket.window_packets = tcp.snd_cwnd;
        // The kernel keeps eighths (6.18 `include/linux/tcp.h`, `srtt_us`).
        socket.rtt_us = tcp.srtt_us >> 3;
        if let Some(write_seq) = write_seq(sk) {
            socket.write_seq = write_seq;
            socket.known = 1;
        }
    }
}

#[inline(always)]
fn forget(socket: &mut Socket) {
    socket.known = 0;
    socket.window_packets = 0;
    socket.rtt_us = 0;
}

/// The TCP socket that sent the packet.
#[inline(always)]
fn tcp_of(ctx: &TcContext) -> Option<(*mut bpf_sock, *mut bpf_tcp_sock)> {
    // SAFETY: the context is the one this program was called with.
    let skb = unsafe { &*ctx.skb.skb };
    // SAFETY: the union has one member.
    let sk = unsafe { skb.__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: the pointer is the context's and not null.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return None;
    }
    // SAFETY: the pointer is to a whole socket.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    (!tcp.is_null()).then_some((sk, tcp))
}

/// Sequence number behind the last byte that the application has written; no helper tells it, so it is read from
/// the kernel's own structure, which the verifier allows at a known offset.
#[inline(always)]
fn write_seq(sk: *mut bpf_sock) -> Option<u32> {
    // SAFETY: initialised read-only data; volatile keeps the value that was set at load.
    let offset = unsafe { (&raw const WRITE_SEQ_OFFSET).read_volatile() };
    if offset == UNKNOWN {
        return None;
    }
    // SAFETY: the pointer is to a whole socket.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
    if tcp.is_null() {
        return None;
    }
    let at = tcp.wrapping_byte_add(offset as usize).cast::<u32>();
    // SAFETY: the pointer is to the kernel's structure, and the offset is the one that its type information gives.
    Some(unsafe { *at })
}
