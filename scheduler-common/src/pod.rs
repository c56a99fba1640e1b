//! The one file that vouches for the types towards aya.
#![expect(unsafe_code, reason = "aya::Pod is a foreign unsafe trait")]

use crate::{
    counter::PerCpu,
    flow::{Clock, FlowSet, Hashing, Story},
    history::HistoryEntry,
    ingress::{Interface, Metadata, Policer},
    replay::Moment,
    sample::Sample,
    settings::Settings,
    tree::Table,
};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: zerocopy's derives prove that the type has no padding and that every bit
        // pattern is a value; `const` below fails to compile otherwise.
        unsafe impl aya::Pod for $type {}
        const _: () = {
            const fn is_plain<T: zerocopy::FromBytes + zerocopy::IntoBytes + Copy>() {}
            is_plain::<$type>();
        };
    )+};
}

pod!(
    Clock,
    FlowSet,
    Hashing,
    HistoryEntry,
    Interface,
    Metadata,
    Moment,
    PerCpu,
    Policer,
    Sample,
    Settings,
    Story,
    Table
);
