//! Facts of interfaces and the tables of the ingress acts.

use aya::{
    maps::{Array, CpuMap, HashMap, MapError, PerCpuArray, xdp::XdpMapError},
    util::nr_cpus,
};
use scheduler_common::{
    class::BANDS,
    ingress::{IngressCounter, Interface, Policer, STEER_SLOTS},
    names,
    settings::{Settings, settings_flags},
};

use super::{Datapath, DatapathError};
use crate::ingress::{Limit, Steering};

/// Packets that may wait for a CPU; beyond it the kernel drops.
const CPU_QUEUE_PACKETS: u32 = 4096;

impl Datapath {
    /// Tells the programs what is peculiar to an interface; `None` forgets it.
    ///
    /// # Errors
    /// If a map can't be written.
    pub fn set_interface(
        &self,
        ifindex: u32,
        interface: Option<Interface>,
    ) -> Result<(), DatapathError> {
        let name = names::INTERFACES;
        let fault = |source| DatapathError::Map { name, source };
        let mut map = HashMap::<_, u32, Interface>::try_from(self.map(name)?).map_err(fault)?;
        match interface {
            Some(interface) => map.insert(ifindex, interface, 0).map_err(fault)?,
            None => match map.remove(&ifindex) {
                Err(MapError::KeyNotFound) | Ok(()) => {}
                // What aya makes of ENOENT depends on the call.
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(fault(source)),
            },
        }
        let any = map.keys().next().is_some();
        let settings = self.settings()?;
        let flags = if any {
            settings.flags | settings_flags::INTERFACES
        } else {
            settings.flags & !settings_flags::INTERFACES
        };
        if flags != settings.flags {
            self.set_settings(&Settings { flags, ..settings })?;
        }
        Ok(())
    }

    /// What the programs know of an interface.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn interface(&self, ifindex: u32) -> Result<Option<Interface>, DatapathError> {
        let name = names::INTERFACES;
        let fault = |source| DatapathError::Map { name, source };
        let map = HashMap::<_, u32, Interface>::try_from(self.map(name)?).map_err(fault)?;
        match map.get(&ifindex, 0) {
            Ok(interface) => Ok(Some(interface)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(fault(source)),
        }
    }

    /// Sets the rate limits of the bands on ingress; bands that are not named have none.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_limits(&self, limits: &[Limit]) -> Result<(), DatapathError> {
        let name = names::POLICERS;
        let fault = |source| DatapathError::Map { name, source };
        let mut map = Array::<_, Policer>::try_from(self.map(name)?).map_err(fault)?;
        for band in 0..BANDS as u32 {
            let limit = limits.iter().find(|limit| u32::from(limit.band) == band);
            let wanted = limit.map_or_else(Policer::default, |limit| {
                Policer::new(limit.rate_bps, limit.burst_bytes)
            });
            let present = map.get(&band, 0).map_err(fault)?;
            // An unchanged bucket keeps its level.
            if (present.ns_per_byte_q16, present.burst_ns)
                != (wanted.ns_per_byte_q16, wanted.burst_ns)
            {
                map.set(band, wanted, 0).map_err(fault)?;
            }
        }
        Ok(())
    }

    /// Sets the CPUs that ingress packets are handed to.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchCpu`], or if a map can't be written.
    pub fn set_steering(&self, steering: &Steering) -> Result<(), DatapathError> {
        let Steering { urgent, bulk } = steering;
        let present = cpus()?;
        if let Some(cpu) = urgent.iter().chain(bulk).find(|cpu| **cpu >= present) {
            return Err(DatapathError::NoSuchCpu { cpu: *cpu, present });
        }
        let name = names::CPUS;
        let fault = |source| DatapathError::Map { name, source };
        let mut queues = CpuMap::try_from(self.map(name)?).map_err(fault)?;
        for cpu in urgent.iter().chain(bulk) {
            // Setting an entry anew would make a new thread and lose what waits in the old queue.
            if queues
                .get(*cpu, 0)
                .is_ok_and(|queue| queue.queue_size == CPU_QUEUE_PACKETS)
            {
                continue;
            }
            queues
                .set(*cpu, CPU_QUEUE_PACKETS, None, 0)
                .map_err(|error| match error {
                    XdpMapError::MapError(source) => fault(source),
                    XdpMapError::ChainedProgramNotSupported => fault(MapError::ProgIdNotSupported),
                })?;
        }
        let name = names::STEERING;
        let fault = |source| DatapathError::Map { name, source };
        let mut slots = Array::<_, u32>::try_from(self.map(name)?).map_err(fault)?;
        for (first, group) in [(0, urgent), (STEER_SLOTS, bulk)] {
            for (slot, cpu) in (first..first + STEER_SLOTS).zip(group.iter().cycle()) {
                slots.set(slot, cpu, 0).map_err(fault)?;
            }
        }
        Ok(())
    }

    /// Sum over all CPUs of what ingress did, in the order of [`IngressCounter::ALL`].
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn ingress_counters(&self) -> Result<Vec<(IngressCounter, u64)>, DatapathError> {
        let name = names::INGRESS_COUNTERS;
        let fault = |source| DatapathError::Map { name, source };
        let map = PerCpuArray::<_, u64>::try_from(self.map(name)?).map_err(fault)?;
        IngressCounter::ALL
            .iter()
            .map(|counter| {
                let values = map.get(&(*counter as u32), 0).map_err(fault)?;
                Ok((*counter, values.iter().sum()))
            })
            .collect()
    }
}

/// Number of CPUs that this machine may have.
pub(super) fn cpus() -> Result<u32, DatapathError> {
    let count = nr_cpus().map_err(|(path, source)| DatapathError::Io {
        op: "read",
        path: path.into(),
        source,
    })?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}
