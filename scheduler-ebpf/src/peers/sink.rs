//! Where results go, so that no work is optimised away.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use scheduler_common::features::Features;

use crate::textbook::Tuple;

/// What a bench program computed last.
pub(crate) struct Sink {
    key: Tuple,
    features: Features,
    word: u32,
}

/// Key: 0. Value: last results. Writer: the bench programs. Reader: nobody.
#[btf_map]
static SINK: PerCpuArray<Sink, 1> = PerCpuArray::new();

#[inline(always)]
pub(crate) fn tuple(key: Tuple) {
    if let Some(sink) = SINK.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own value.
        unsafe { (&raw mut (*sink).key).write(key) };
    }
}

#[inline(always)]
pub(crate) fn features(features: &Features) {
    if let Some(sink) = SINK.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own value.
        unsafe { (&raw mut (*sink).features).write(*features) };
    }
}

#[inline(always)]
pub(crate) fn word(word: u32) {
    if let Some(sink) = SINK.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own value.
        unsafe { (&raw mut (*sink).word).write(word) };
    }
}
