//! The kernel programs: loaded, pinned, adopted, removed.
//!
//! Programs and maps are pinned, so they outlive the process that loaded them; whoever comes next
//! opens the pins. One set serves all interfaces of an instance.

mod attach;
pub mod clock;
pub mod cost;
mod error;
mod ingress;
mod log;
mod maps;
mod probe;
mod types;

use std::{fs, path::PathBuf};

use aya::{
    EbpfError, EbpfLoader,
    maps::{MapData, MapError, RingBuf},
    programs::{SchedClassifier, Xdp},
};
use nix::{errno::Errno, mount::MsFlags, sys::statfs};
use scheduler_common::{
    ABI_VERSION,
    flow::{Flow, Hashing, MAX_ENTRIES, Story, WAYS},
    names,
    sample::Sample,
    settings::{Act, Settings},
    tree::Table,
};

pub use self::{
    attach::{EgressChoice, Hooking, Hooks, Order},
    error::DatapathError,
    maps::{ActiveTable, Staged},
    probe::{Trial, trial},
};
use crate::instance::{BPFFS, Instance};

/// The eBPF object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/treeline-ebpf"));

/// Bytes of one ring-buffer record.
pub const SAMPLE_BYTES: usize = size_of::<Sample>();

/// How the programs came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process loaded them.
    Loaded,
    /// They were pinned by an earlier one and go on as they were.
    Adopted,
    /// Those of another ABI version were replaced.
    Replaced,
}

/// Handle to an instance's pinned programs and maps.
#[derive(Debug)]
pub struct Datapath {
    instance: Instance,
}

impl Datapath {
    /// Opens what is pinned, or loads and pins it with room for `flow_entries` flows.
    ///
    /// # Errors
    /// If the kernel refuses; nothing is left behind then.
    pub fn open_or_load(
        instance: &Instance,
        settings: &Settings,
        flow_entries: u32,
    ) -> Result<(Self, Origin), DatapathError> {
        mount_bpffs()?;
        match Self::open(instance) {
            Ok(Some(datapath)) => return Ok((datapath, Origin::Adopted)),
            Ok(None) => {}
            Err(DatapathError::AbiVersion { .. }) => {
                let old = Self {
                    instance: instance.clone(),
                };
                old.unload()?;
                return Ok((
                    Self::load(instance, settings, flow_entries)?,
                    Origin::Replaced,
                ));
            }
            Err(error) => return Err(error),
        }
        Ok((
            Self::load(instance, settings, flow_entries)?,
            Origin::Loaded,
        ))
    }

    /// Opens what is pinned; `None` if nothing is.
    ///
    /// # Errors
    /// [`DatapathError::AbiVersion`] if another version of treeline pinned it.
    pub fn open(instance: &Instance) -> Result<Option<Self>, DatapathError> {
        let datapath = Self {
            instance: instance.clone(),
        };
        let complete = names::MAPS
            .iter()
            .all(|name| datapath.map_pin(name).exists())
            && [names::EGRESS, names::INGRESS]
                .iter()
                .all(|name| datapath.program_pin(name).exists());
        if !complete {
            return Ok(None);
        }
        let found = datapath.settings()?.abi_version;
        if found != ABI_VERSION {
            return Err(DatapathError::AbiVersion { found });
        }
        Ok(Some(datapath))
    }

    fn load(
        instance: &Instance,
        settings: &Settings,
        flow_entries: u32,
    ) -> Result<Self, DatapathError> {
        let datapath = Self {
            instance: instance.clone(),
        };
        // Left-overs of a load that was cut short.
        remove_tree(&datapath.instance.pins())?;
        let loaded = datapath.load_and_pin(settings, sets_of(flow_entries));
        if loaded.is_err() {
            remove_tree(&datapath.instance.pins())?;
        }
        loaded.map(|()| datapath)
    }

    fn load_and_pin(&self, settings: &Settings, sets: u32) -> Result<(), DatapathError> {
        let write_seq_offset = types::member_offset("tcp_sock", "write_seq");
        let mut loader = EbpfLoader::new();
        if let Some(offset) = &write_seq_offset {
            // Without it the programs ask sockets less.
            loader.override_global("WRITE_SEQ_OFFSET", offset, true);
        }
        let clock = clock::of_this_boot();
        let hashing = Hashing {
            multipliers: rand::random(),
            sample_key: rand::random(),
            set_mask: sets - 1,
            _pad: 0,
        };
        let mut ebpf = loader
            .override_global("CLOCK", &clock, true)
            .override_global("SECRET", &hashing, true)
            .map_max_entries(names::FLOWS, sets)
            .map_max_entries(names::STORIES, sets * WAYS as u32)
            .map_max_entries(names::CPUS, ingress::cpus()?)
            .load(OBJECT)
            .map_err(|source| refused(source, sets))?;
        for directory in ["maps", "programs", "links"] {
            let path = self.instance.pins().join(directory);
            fs::create_dir_all(&path).map_err(|source| DatapathError::Io {
                op: "create",
                path,
                source,
            })?;
        }
        for name in names::MAPS {
            let map = ebpf
                .map(name)
                .ok_or(DatapathError::MissingInObject { name })?;
            let path = self.map_pin(name);
            map.pin(&path)
                .map_err(|source| DatapathError::Pin { path, source })?;
        }
        if let Some(map) = ebpf.map(log::MAP) {
            let path = self.log_pin();
            map.pin(&path)
                .map_err(|source| DatapathError::Pin { path, source })?;
        }
        self.set_hashing(&hashing)?;
        self.set_settings(settings)?;
        let pin_error = |path, source| DatapathError::Pin { path, source };
        let program_error = |op, source| DatapathError::Program {
            op,
            source: Box::new(source),
        };
        let egress: &mut SchedClassifier = program(&mut ebpf, names::EGRESS)?;
        egress
            .load()
            .map_err(|source| program_error("load the egress program", source))?;
        let path = self.program_pin(names::EGRESS);
        egress
            .pin(&path)
            .map_err(|source| pin_error(path, source))?;
        let ingress: &mut Xdp = program(&mut ebpf, names::INGRESS)?;
        ingress
            .load()
            .map_err(|source| program_error("load the ingress program", source))?;
        let path = self.program_pin(names::INGRESS);
        ingress.pin(&path).map_err(|source| pin_error(path, source))
    }

    /// Removes every pin; the kernel frees programs and maps with their last user.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn unload(self) -> Result<(), DatapathError> {
        Self::unload_all(&self.instance)
    }

    /// Removes every pin of an instance, whatever version made it.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn unload_all(instance: &Instance) -> Result<(), DatapathError> {
        // That which `is_pinned` looks at goes first: whoever misses another one can tell why.
        let first = map_pin(instance, names::SETTINGS);
        match fs::remove_file(&first) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(DatapathError::Io {
                    op: "remove",
                    path: first,
                    source,
                });
            }
            _ => {}
        }
        remove_tree(&instance.pins())
    }

    /// Whether the pins still stand: `down` removes them.
    pub fn is_pinned(&self) -> bool {
        self.map_pin(names::SETTINGS).exists()
    }

    fn map_pin(&self, name: &str) -> PathBuf {
        map_pin(&self.instance, name)
    }

    fn program_pin(&self, name: &str) -> PathBuf {
        self.instance.pins().join("programs").join(name)
    }

    fn link_pin(&self, ifindex: u32, hook: &str) -> PathBuf {
        self.instance
            .pins()
            .join("links")
            .join(format!("{ifindex}-{hook}"))
    }

    /// The ring buffer of samples. One reader at a time.
    ///
    /// # Errors
    /// If the pin is gone.
    pub fn samples(&self) -> Result<RingBuf<MapData>, DatapathError> {
        RingBuf::try_from(self.map(names::SAMPLES)?).map_err(|source| DatapathError::Map {
            name: names::SAMPLES,
            source,
        })
    }

    /// Switches between scheduling and watching.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_act(&self, act: Act) -> Result<(), DatapathError> {
        let settings = Settings {
            act: act as u32,
            ..self.settings()?
        };
        self.set_settings(&settings)
    }

    /// Takes the model out: aging rules from the next packet on.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn deactivate(&self) -> Result<(), DatapathError> {
        self.activate(&Table::empty())
    }
}

/// Sets of a table with room for `entries` flows, rounded up to a power of two within the bounds.
const fn sets_of(entries: u32) -> u32 {
    let entries = if entries > MAX_ENTRIES {
        MAX_ENTRIES
    } else {
        entries
    };
    let sets = entries.div_ceil(WAYS as u32).next_power_of_two();
    if sets == 0 { 1 } else { sets }
}

/// Why the kernel did not take the maps.
fn refused(source: EbpfError, sets: u32) -> DatapathError {
    let no_memory = matches!(
        &source,
        EbpfError::MapError(MapError::CreateError { name, io_error })
            if [names::FLOWS, names::STORIES].contains(&name.as_str())
                && io_error.raw_os_error() == Some(Errno::ENOMEM as i32)
    );
    let source = Box::new(source);
    if no_memory {
        let flow_entries = sets * WAYS as u32;
        let bytes = u64::from(flow_entries) * (size_of::<Flow>() + size_of::<Story>()) as u64;
        DatapathError::NoMemory {
            flow_entries,
            mib: bytes.div_ceil(1 << 20),
            source,
        }
    } else {
        DatapathError::Load { source }
    }
}

fn program<'a, T>(ebpf: &'a mut aya::Ebpf, name: &'static str) -> Result<&'a mut T, DatapathError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .ok_or(DatapathError::MissingInObject { name })?;
    program.try_into().map_err(|source| DatapathError::Program {
        op: "find the program",
        source: Box::new(source),
    })
}

fn map_pin(instance: &Instance, name: &str) -> PathBuf {
    instance.pins().join("maps").join(name)
}

/// Mounts the BPF file system where it is missing.
fn mount_bpffs() -> Result<(), DatapathError> {
    let path = PathBuf::from(BPFFS);
    let mounted =
        statfs::statfs(&path).is_ok_and(|stat| stat.filesystem_type() == statfs::BPF_FS_MAGIC);
    if mounted {
        return Ok(());
    }
    nix::mount::mount(
        Some("bpf"),
        &path,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .map_err(|source| DatapathError::NoBpffs { source })
}

/// Removes a directory and all in it; a missing one is fine.
fn remove_tree(path: &std::path::Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(DatapathError::Io {
            op: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::OBJECT;

    /// The machine of an ELF file that holds eBPF.
    const EM_BPF: u16 = 247;

    #[test]
    fn the_object_is_that_of_every_little_endian_machine() {
        // 64 bits, little-endian, of no processor: x86-64 and arm64 load the same bytes. That the build for arm64 makes the same
        // of it is what `cargo xtask package --arm64` compares.
        assert_eq!(OBJECT[..6], *b"\x7fELF\x02\x01");
        assert_eq!(u16::from_le_bytes([OBJECT[18], OBJECT[19]]), EM_BPF);
    }
}
