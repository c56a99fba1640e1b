//! What a built program needs of the C library, and what is in an eBPF object.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
};

use anyhow::{Context as _, Result};
use object::{
    Endianness, Object as _, ObjectSection as _, SectionFlags, elf, read::elf::ElfFile64,
};

/// A version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Libc(pub(super) u32, pub(super) u32);

impl Libc {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        Some(Self(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    }
}

impl Display for Libc {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(major, minor) = self;
        write!(f, "{major}.{minor}")
    }
}

/// The newest version of glibc whose symbols a program is linked with.
pub(super) fn libc_of(program: &[u8]) -> Result<Libc> {
    let file = ElfFile64::<Endianness>::parse(program).context("not a program of 64 bits")?;
    let endian = file.endian();
    let sections = file.elf_section_table();
    let mut newest = None;
    let (mut needs, link) = sections
        .gnu_verneed(endian, program)?
        .context("the program asks for no version of any library")?;
    let strings = sections.strings(endian, program, link)?;
    while let Some((_library, mut versions)) = needs.next()? {
        while let Some(version) = versions.next()? {
            let name = String::from_utf8_lossy(version.name(endian, strings)?);
            let glibc = name.strip_prefix("GLIBC_").and_then(Libc::parse);
            newest = newest.max(glibc);
        }
    }
    newest.context("the program is not linked with glibc")
}

/// Sections that the kernel is given, by name: programs, maps, data, types.
pub(super) fn loaded_sections(object: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = ElfFile64::<Endianness>::parse(object).context("not an object of 64 bits")?;
    let mut sections = BTreeMap::new();
    for section in file.sections() {
        let name = section.name()?.to_owned();
        let allocated = matches!(
            section.flags(),
            SectionFlags::Elf { sh_flags } if sh_flags & u64::from(elf::SHF_ALLOC) != 0
        );
        if allocated || name == ".BTF" {
            sections.insert(name, section.data()?.to_owned());
        }
    }
    Ok(sections)
}

/// What type information says, but for the paths of source files: bytes of types, and the names in them.
pub(super) fn types_of(btf: &[u8]) -> Option<(u32, BTreeSet<&[u8]>)> {
    let word = |at: usize| {
        let bytes = btf.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (header, types, start, length) = (word(4)?, word(12)?, word(16)?, word(20)?);
    let start = header.checked_add(start)? as usize;
    let strings = btf.get(start..start.checked_add(length as usize)?)?;
    let is_name = |text: &&[u8]| !text.starts_with(b"/");
    let names = strings.split(|byte| *byte == 0).filter(is_name);
    Some((types, names.collect()))
}

/// Whether a program is for arm64.
pub(super) fn is_arm64(program: &[u8]) -> Result<bool> {
    let file = ElfFile64::<Endianness>::parse(program).context("not a program of 64 bits")?;
    Ok(file.architecture() == object::Architecture::Aarch64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_a_glibc_that_it_runs_with() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if cfg!(target_env = "gnu") {
            let needed = libc_of(&this).unwrap();
            assert!(needed >= Libc(2, 17), "{needed}");
        }
        assert_eq!(is_arm64(&this).unwrap(), cfg!(target_arch = "aarch64"));
        let sections = loaded_sections(&this).unwrap();
        assert!(!sections[".text"].is_empty());
        assert!(!sections.contains_key(".debug_info"));
    }

    #[test]
    fn types_are_read_without_the_paths_of_their_sources() {
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        for word in [24u32, 0, 8, 8, 11] {
            btf.extend(word.to_le_bytes());
        }
        btf.extend([0; 8]);
        btf.extend(b"\0u32\0/a.rs\0");
        let (types, names) = types_of(&btf).unwrap();
        assert_eq!(types, 8);
        assert_eq!(names, BTreeSet::from([&b""[..], b"u32"]));
        assert_eq!(types_of(&btf[..30]), None);
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(Libc::parse("2.9").unwrap() < Libc::parse("2.34").unwrap());
        assert_eq!(Libc::parse("2.2.5"), Some(Libc(2, 2)));
        assert_eq!(Libc::parse("PRIVATE"), None);
    }
}
