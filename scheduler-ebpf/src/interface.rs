//! What is peculiar to the interface that a packet passes.

use scheduler_common::{
    ingress::Interface,
    settings::{Settings, settings_flags},
};

use crate::maps::INTERFACES;

/// The facts of an interface. Where no interface has any, this is one test of a bit.
///
/// The flags pass through `forgotten`, a number in map memory: else the verifier would follow every way
/// of parsing twice, once for those it knows to be zero.
#[inline(always)]
pub(crate) fn of(settings: &Settings, ifindex: u32, forgotten: &mut u32) -> Interface {
    let mut interface = Interface {
        key_ifindex: ifindex,
        flags: 0,
    };
    if settings.flags & settings_flags::INTERFACES != 0
        && let Some(found) = INTERFACES.get_ptr(ifindex)
    {
        // SAFETY: map values live as long as the program runs on this packet; userspace replaces an
        // entry as a whole, and its two words are right in any mix.
        interface = unsafe { *found };
    }
    let forgotten: *mut u32 = forgotten;
    // SAFETY: the pointer was made from a reference just above.
    unsafe {
        forgotten.write_volatile(interface.flags);
    }
    // SAFETY: as above.
    interface.flags = unsafe { forgotten.read_volatile() };
    interface
}
