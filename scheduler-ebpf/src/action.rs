//! Band → priority, and where asked for queue, departure time, DSCP.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{bpf_ktime_get_ns, bpf_skb_set_tstamp},
    programs::TcContext,
};
use scheduler_common::{
    act::{KEEP_DSCP, PACE_HORIZON_NS, duration_ns, marked},
    class::BANDS,
    counter::Counter,
    sample::Hook,
    settings::{Act, Settings, settings_flags},
};

use crate::maps::{PACED_UNTIL, PER_CPU};

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
const MAX_TAGS: usize = 2;
const IPV4_CHECKSUM_AT: usize = 10;
/// `BPF_SKB_TSTAMP_DELIVERY_MONO`: the time is one of departure, by the monotonic clock.
const DEPARTURE: u32 = 1;

/// Does to the packet what the settings say of `band`, unless they say to watch only.
#[inline(always)]
pub(crate) fn apply(ctx: &TcContext, settings: &Settings, band: u8) {
    let band = usize::from(band) & (BANDS - 1);
    if settings.act == Act::Priority as u32 {
        // SAFETY: the context is the one this program was called with; a TC program may write
        // the field (kernel 6.18 `net/core/filter.c`, `tc_cls_act_is_valid_access`).
        unsafe {
            (*ctx.skb.skb).priority = settings.priorities[band];
        }
    }
    if settings.flags & settings_flags::RARE_ACTS != 0 && settings.act != Act::Observe as u32 {
        rare(ctx.skb.skb, settings, band);
    }
}

/// The acts that are off by default; a function of its own, so that they cost the others no register.
#[inline(never)]
fn rare(skb: *mut __sk_buff, settings: &Settings, band: usize) {
    let band = band & (BANDS - 1);
    let queue = settings.queues[band];
    if settings.flags & settings_flags::QUEUES != 0 && queue != 0 {
        // SAFETY: as for the priority. The stack reads it as a queue plus 1 (`skb_tx_hash`).
        unsafe {
            (*skb).queue_mapping = u32::from(queue);
        }
    }
    if settings.flags & settings_flags::PACE != 0 && settings.pace[band] != 0 {
        pace(skb, settings.pace[band], band as u32);
    }
    // Last: pointers into the packet end with the first write.
    let dscp = settings.dscp[band];
    if settings.flags & settings_flags::DSCP != 0 && dscp != KEEP_DSCP {
        // SAFETY: the context is the one this program was called with.
        let ethertype = u16::from_be(unsafe { (*skb).protocol } as u16);
        let network_frames = settings.flags & settings_flags::NETWORK_FRAMES != 0;
        let ctx = TcContext::new(skb);
        if let Some(at) = network_header(&ctx, ethertype, network_frames) {
            mark(&ctx, at, dscp);
        }
    }
}

/// Gives the packet the time at which the band's earlier packets will have left.
///
/// CPUs share the clock. Where two read it before either writes, both packets depart at one time and the
/// time of one is lost: the band is a packet ahead of its pace then.
#[inline(always)]
fn pace(skb: *mut __sk_buff, pace: u32, band: u32) {
    let Some(clock) = PACED_UNTIL.get_ptr_mut(band) else {
        return;
    };
    // SAFETY: the helper takes no argument and reads a clock: the one that `fq` goes by.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the context is the one this program was called with. The length is that of all segments with
    // their headers.
    let bytes = unsafe { (*skb).wire_len };
    let cost_ns = duration_ns(pace, bytes);
    // SAFETY: the pointer is to a map value, which outlives the program's run; a word of 8 aligned bytes is
    // read and written as a whole, and any number in it is a time.
    let mut departure_ns = unsafe { clock.read_volatile() };
    if departure_ns <= now_ns {
        // SAFETY: as above.
        unsafe {
            clock.write_volatile(now_ns + cost_ns);
        }
        return;
    }
    if departure_ns > now_ns + PACE_HORIZON_NS {
        departure_ns = now_ns + PACE_HORIZON_NS;
        count(Counter::PacedAtHorizon);
    } else {
        // SAFETY: as above.
        unsafe {
            clock.write_volatile(departure_ns + cost_ns);
        }
    }
    // SAFETY: as above; on egress it is a time of departure, which the socket may have set.
    if unsafe { (*skb).tstamp } >= departure_ns {
        return;
    }
    count(Counter::PacedPackets);
    // SAFETY: as above. The helper takes IP packets only, by an EtherType that a tag hides.
    if unsafe { bpf_skb_set_tstamp(skb, departure_ns, DEPARTURE) } != 0 {
        // SAFETY: as for the priority.
        unsafe {
            (*skb).tstamp = departure_ns;
        }
    }
}

/// Where the outermost IP header begins; `None` where that is not told by Ethernet and its tags.
#[inline(always)]
fn network_header(ctx: &TcContext, protocol: u16, network_frames: bool) -> Option<usize> {
    const CTAG: u16 = 0x8100;
    const STAG: u16 = 0x88a8;
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    let is_ip = |ethertype| ethertype == IPV4 || ethertype == IPV6;
    if network_frames {
        return is_ip(protocol).then_some(0);
    }
    let mut ethertype = u16::from_be(ctx.load(ETHERNET_BYTES - 2).ok()?);
    if is_ip(protocol) && ethertype != protocol {
        // The kernel says that this is IP, and it has no Ethernet header to say so.
        return Some(0);
    }
    let mut at = ETHERNET_BYTES;
    for _ in 0..MAX_TAGS {
        if ethertype == CTAG || ethertype == STAG {
            ethertype = u16::from_be(ctx.load(at + 2).ok()?);
            at += TAG_BYTES;
        }
    }
    is_ip(ethertype).then_some(at)
}

/// Rewrites the DSCP of the IP header at `at`, unless it is that already.
#[inline(always)]
fn mark(ctx: &TcContext, at: usize, dscp: u8) {
    let Ok(head) = ctx.load::<[u8; 2]>(at) else {
        return;
    };
    let Some(new) = marked(head, dscp) else {
        return;
    };
    let is_ipv4 = head[0] >> 4 == 4;
    if is_ipv4 {
        let [before, after] = [head, new].map(|word| u64::from(u16::from_ne_bytes(word)));
        if ctx
            .l3_csum_replace(at + IPV4_CHECKSUM_AT, before, after, 2)
            .is_err()
        {
            // Shorter than an IPv4 header.
            return;
        }
    }
    // The checksum has taken the change back for whoever sums up an IPv4 header; IPv6 has none.
    let flags = if is_ipv4 {
        0
    } else {
        u64::from(BPF_F_RECOMPUTE_CSUM)
    };
    if ctx.store(at, &new, flags).is_ok() {
        count(Counter::DscpRewritten);
    }
}

/// Counts a rare act. Looked up anew: who does none of them has nothing to hand down.
#[inline(always)]
fn count(counter: Counter) {
    if let Some(kept) = PER_CPU.get_ptr_mut(Hook::Egress as u32) {
        // SAFETY: the pointer is to this CPU's own value for this hook, and a program is not re-entered on a CPU;
        // the caller has counted what it had to before it acts.
        unsafe {
            (*kept).kept.counts.counters[counter as usize] += 1;
        }
    }
}
