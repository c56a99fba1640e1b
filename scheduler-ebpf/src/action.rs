//! Band → `skb->priority`.

use aya_ebpf::programs::TcContext;
use scheduler_common::{
    class::class_handle,
    settings::{Act, Settings},
};

/// Gives the packet the class of `band`, unless the settings say to watch only.
#[inline(always)]
pub(crate) fn apply(ctx: &TcContext, settings: &Settings, band: u8) {
    if settings.act == Act::Priority as u32 {
        // SAFETY: the context is the one this program was called with; a TC program may write
        // the field (kernel 6.18 `net/core/filter.c`, `tc_cls_act_is_valid_access`).
        unsafe {
            (*ctx.skb.skb).priority = class_handle(band);
        }
    }
}
