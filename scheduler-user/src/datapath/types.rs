//! Offsets in the kernel's structures, from its own type information.
//!
//! The format is that of the kernel's `Documentation/bpf/btf.rst` (6.18). aya reads it, too, but keeps members to
//! itself; the libraries that tell them are under the LGPL or wrap a C one.

use std::{fs, path::Path};

use tracing::debug;

const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Offset in bytes of a member of a structure of the running kernel; `None` if it does not say.
pub(super) fn member_offset(structure: &str, member: &str) -> Option<u32> {
    let offset = fs::read(Path::new(KERNEL))
        .ok()
        .and_then(|types| offset_in(&types, structure, member));
    debug!(structure, member, offset, "looked up in the kernel's types");
    offset
}

fn offset_in(types: &[u8], structure: &str, member: &str) -> Option<u32> {
    if u16::from_ne_bytes(types.get(..2)?.try_into().ok()?) != MAGIC {
        return None;
    }
    let header_bytes = word(types, 4)?;
    let types_at = header_bytes.checked_add(word(types, 8)?)? as usize;
    let types_bytes = word(types, 12)? as usize;
    let strings_at = header_bytes.checked_add(word(types, 16)?)? as usize;
    let strings = types.get(strings_at..)?;
    let records = types.get(types_at..types_at.checked_add(types_bytes)?)?;
    let mut at = 0;
    while at < records.len() {
        let info = word(records, at + 4)?;
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let with_bitfields = info >> 31 == 1;
        if kind == KIND_STRUCT && is_named(strings, word(records, at)?, structure) {
            for place in (0..count).map(|index| at + 12 + 12 * index) {
                if is_named(strings, word(records, place)?, member) {
                    let bits = word(records, place + 8)?;
                    let bits = if with_bitfields {
                        bits & 0x00ff_ffff
                    } else {
                        bits
                    };
                    return (bits % 8 == 0).then_some(bits / 8);
                }
            }
            return None;
        }
        at += 12 + extra_bytes(kind, count);
    }
    None
}

/// What follows the head of a type.
const fn extra_bytes(kind: u32, count: usize) -> usize {
    match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
        KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
        _ => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

fn is_named(strings: &[u8], at: u32, name: &str) -> bool {
    let rest = strings.get(at as usize..).unwrap_or_default();
    rest.strip_prefix(name.as_bytes())
        .is_some_and(|behind| behind.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_its_offsets() {
        if !Path::new(KERNEL).exists() {
            eprintln!("skipped: this kernel has no type information");
            return;
        }
        // Fixed by the kernel's interface to programs: `struct __sk_buff`.
        assert_eq!(member_offset("__sk_buff", "len"), Some(0));
        assert_eq!(member_offset("__sk_buff", "priority"), Some(32));
        assert_eq!(member_offset("__sk_buff", "gso_segs"), Some(164));
        assert!(member_offset("tcp_sock", "write_seq").is_some_and(|offset| offset > 0));
        assert_eq!(member_offset("tcp_sock", "no_such_member"), None);
        assert_eq!(member_offset("no_such_structure", "len"), None);
    }

    #[test]
    fn what_is_no_type_information_tells_nothing() {
        let whole = fs::read(KERNEL).unwrap_or_default();
        for cut in [0, 1, 3, 23, 24, 100, whole.len() / 2] {
            let part = whole.get(..cut).unwrap_or_default();
            assert_eq!(offset_in(part, "tcp_sock", "write_seq"), None);
        }
        assert_eq!(offset_in(&[0; 64], "tcp_sock", "write_seq"), None);
    }
}
