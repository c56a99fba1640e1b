//! Typed access to the pinned maps.

use std::{collections::HashSet, fs::File, panic::resume_unwind, thread};

use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError, PerCpuArray};
use scheduler_common::{
    class::BANDS,
    counter::{Beside, Counter, GENERATION_SLOTS, Kept, PerCpu},
    flow::{Flow, FlowSet, Hashing, Story, WAYS, story_of},
    names,
    sample::Hook,
    settings::Settings,
    tree::Table,
};
use scheduler_ebpf::{flow, hash};

use super::{Datapath, DatapathError};
use crate::{dataset::Readings, model::Thresholds};

/// Head of the table that the kernel walks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveTable {
    /// Generation of the model.
    pub generation: u32,
    /// Its trees.
    pub trees: u32,
    /// Its nodes.
    pub nodes: u32,
    /// Splits on its longest path.
    pub depth: u32,
}

/// A table that lies in the spare slot, ready to act, or to be asked in the shadow.
#[derive(Debug)]
#[must_use = "it does not act before it is flipped"]
pub struct Staged {
    outer: ArrayOfMaps<MapData>,
    at: u32,
    slot: MapData,
    _lock: File,
}

impl Staged {
    /// Sets the pointer, which the next packet follows, and waits for the last one that follows the old pointer.
    ///
    /// # Errors
    /// If the kernel refuses; the old model acts on then.
    pub fn flip(mut self) -> Result<(), DatapathError> {
        let set = self.outer.set(self.at, &self.slot, 0);
        set.map_err(|source| DatapathError::Map {
            name: names::MODEL,
            source,
        })
    }
}

impl Datapath {
    pub(super) fn map(&self, name: &'static str) -> Result<Map, DatapathError> {
        Map::from_map_data(self.map_data(name)?)
            .map_err(|source| DatapathError::Map { name, source })
    }

    fn map_data(&self, name: &'static str) -> Result<MapData, DatapathError> {
        MapData::from_pin(self.map_pin(name)).map_err(|source| DatapathError::Map { name, source })
    }

    /// The settings in force.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn settings(&self) -> Result<Settings, DatapathError> {
        let fault = |source| DatapathError::Map {
            name: names::SETTINGS,
            source,
        };
        let map = Array::<_, Settings>::try_from(self.map(names::SETTINGS)?).map_err(fault)?;
        map.get(&0, 0).map_err(fault)
    }

    /// Changes the settings; the next packet sees them.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_settings(&self, settings: &Settings) -> Result<(), DatapathError> {
        let fault = |source| DatapathError::Map {
            name: names::SETTINGS,
            source,
        };
        let mut map = Array::<_, Settings>::try_from(self.map(names::SETTINGS)?).map_err(fault)?;
        map.set(0, settings, 0).map_err(fault)
    }

    /// Cuts the bands there, and returns where they were cut before.
    ///
    /// # Errors
    /// If the map can't be read or written.
    pub fn cut_at(&self, thresholds: &Thresholds) -> Result<Thresholds, DatapathError> {
        let settings = self.settings()?;
        let before = Thresholds::from(&settings);
        if before != *thresholds {
            self.set_settings(&thresholds.within(settings))?;
        }
        Ok(before)
    }

    /// Secret of this load and size of its flow table.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn hashing(&self) -> Result<Hashing, DatapathError> {
        let fault = |source| DatapathError::Map {
            name: names::HASHING,
            source,
        };
        let map = Array::<_, Hashing>::try_from(self.map(names::HASHING)?).map_err(fault)?;
        map.get(&0, 0).map_err(fault)
    }

    /// Flows that the table has room for.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn flow_entries(&self) -> Result<u32, DatapathError> {
        Ok((self.hashing()?.set_mask + 1) * WAYS as u32)
    }

    /// Entry and story of the flow with this tag; `None` if it has no place in the table.
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn flow(&self, tag: u64) -> Result<Option<(Flow, Story)>, DatapathError> {
        let fault = |name| move |source| DatapathError::Map { name, source };
        let sets = Array::<_, FlowSet>::try_from(self.map(names::FLOWS)?);
        let sets = sets.map_err(fault(names::FLOWS))?;
        let index = hash::set_of(tag, &self.hashing()?);
        let set = sets.get(&index, 0).map_err(fault(names::FLOWS))?;
        let Some(way) = flow::find(&set.flows, tag, hash::first_way(tag)) else {
            return Ok(None);
        };
        let stories = Array::<_, Story>::try_from(self.map(names::STORIES)?);
        let stories = stories.map_err(fault(names::STORIES))?;
        let story = stories.get(&story_of(index, way as u32), 0);
        Ok(Some((
            set.flows[way],
            story.map_err(fault(names::STORIES))?,
        )))
    }

    /// What stands of the `wanted` flows in these sets of the flow table at `now_ns` by the monotonic clock; each set is a call of the kernel.
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn readings(
        &self,
        wanted: HashSet<u64>,
        sets: impl IntoIterator<Item = u32>,
        now_ns: u64,
    ) -> Result<Readings, DatapathError> {
        let fault = |source| DatapathError::Map {
            name: names::FLOWS,
            source,
        };
        let (hashing, settings) = (self.hashing()?, self.settings()?);
        let map = Array::<_, FlowSet>::try_from(self.map(names::FLOWS)?).map_err(fault)?;
        let stories = Array::<_, Story>::try_from(self.map(names::STORIES)?).map_err(fault)?;
        let mut readings = Readings::of(wanted);
        for index in sets {
            // The table may be a smaller one than that of an older sample.
            if index > hashing.set_mask {
                continue;
            }
            let set = map.get(&index, 0).map_err(fault)?;
            let story = |way| stories.get(&story_of(index, way), 0);
            readings
                .take(&set, story, (&hashing, &settings), now_ns)
                .map_err(fault)?;
        }
        Ok(readings)
    }

    pub(super) fn set_hashing(&self, hashing: &Hashing) -> Result<(), DatapathError> {
        let fault = |source| DatapathError::Map {
            name: names::HASHING,
            source,
        };
        let mut map = Array::<_, Hashing>::try_from(self.map(names::HASHING)?).map_err(fault)?;
        map.set(0, hashing, 0).map_err(fault)
    }

    /// What the programs have kept, by program and CPU.
    fn kept(&self) -> Result<Vec<Kept>, DatapathError> {
        let fault = |source| DatapathError::Map {
            name: names::PER_CPU,
            source,
        };
        let map = PerCpuArray::<_, PerCpu>::try_from(self.map(names::PER_CPU)?).map_err(fault)?;
        let mut kept = Vec::new();
        for hook in [Hook::Egress, Hook::Ingress] {
            let values = map.get(&(hook as u32), 0).map_err(fault)?;
            kept.extend(values.iter().map(|cpu| cpu.kept));
        }
        Ok(kept)
    }

    /// Sum over programs and CPUs of each counter, in the order of [`Counter::ALL`].
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, DatapathError> {
        let kept = self.kept()?;
        let sum = |counter: Counter| {
            let counts = kept.iter().map(|kept| &kept.counts.counters);
            counts.map(|counters| counters[counter as usize]).sum()
        };
        Ok(Counter::ALL.iter().map(|c| (*c, sum(*c))).collect())
    }

    /// Egress packets that `generation` has classified.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn packets_of(&self, generation: u32) -> Result<u64, DatapathError> {
        let slot = (generation % GENERATION_SLOTS) as usize;
        let kept = self.kept()?;
        let slots = kept.iter().map(|kept| &kept.counts.generations[slot]);
        // Without an owner are those of a CPU that has only met verdicts which another one had cached.
        let own = slots.filter(|count| [0, generation].contains(&count.generation));
        Ok(own.map(|count| count.packets).sum())
    }

    /// Gives the kernel a new model.
    ///
    /// The table is checked, written into the spare slot and set by one pointer; the call returns after an
    /// RCU grace period (kernel 6.18 `kernel/bpf/syscall.c`, `maybe_wait_bpf_programs`). So no packet
    /// sees a mix, and once this has returned none reads the old slot, which is the spare one now.
    ///
    /// # Errors
    /// If the table is not sound or a map can't be written; the old model acts on then.
    pub fn activate(&self, table: &Table) -> Result<(), DatapathError> {
        self.stage(table)?.flip()
    }

    /// Lets the kernel ask a second model beside the one that acts, whose answers only go into counts and samples.
    ///
    /// As whole as [`Datapath::activate`], of which it knows nothing: what acts stays.
    ///
    /// # Errors
    /// If the table is not sound or a map can't be written; what was in the shadow before stays there then.
    pub fn watch(&self, table: &Table) -> Result<(), DatapathError> {
        self.stage_at(names::MODEL_IN_SHADOW, table)?.flip()
    }

    /// Asks no second model any more.
    ///
    /// # Errors
    /// If a map can't be written.
    pub fn watch_none(&self) -> Result<(), DatapathError> {
        if self.watched()?.is_none() {
            return Ok(());
        }
        self.watch(&Table::empty())
    }

    /// Checks a table and writes it into the spare slot, which no packet reads; no other can be staged meanwhile.
    ///
    /// # Errors
    /// If the table is not sound or a map can't be written.
    pub fn stage(&self, table: &Table) -> Result<Staged, DatapathError> {
        self.stage_at(names::MODEL_ACTS, table)
    }

    fn stage_at(&self, at: u32, table: &Table) -> Result<Staged, DatapathError> {
        table
            .check()
            .map_err(|fault| DatapathError::UnsoundTable { fault })?;
        // Two who activate at once would both take the same slot for the spare one.
        let lock = self.instance.model_lock()?;
        let fault = |source| DatapathError::Map {
            name: names::MODEL,
            source,
        };
        let outer = self.model()?;
        let mut taken = Vec::new();
        for place in [names::MODEL_ACTS, names::MODEL_IN_SHADOW] {
            match outer.get(&place, 0) {
                Ok(slot) => taken.push(slot.info().map_err(fault)?.id()),
                Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(fault(source)),
            }
        }
        for spare in names::SLOTS {
            let slot = self.map_data(spare)?;
            if !taken.contains(&slot.info().map_err(fault)?.id()) {
                let mut tables = Array::<_, Table>::try_from(self.map(spare)?).map_err(fault)?;
                tables.set(0, table, 0).map_err(fault)?;
                return Ok(Staged {
                    outer,
                    at,
                    slot,
                    _lock: lock,
                });
            }
        }
        // Two places take at most two of three slots.
        Err(fault(MapError::KeyNotFound))
    }

    /// Head of the table in use; `None` if no model acts.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn active(&self) -> Result<Option<ActiveTable>, DatapathError> {
        self.head(names::MODEL_ACTS)
    }

    /// Head of the table that is asked beside it; `None` if none is.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn watched(&self) -> Result<Option<ActiveTable>, DatapathError> {
        self.head(names::MODEL_IN_SHADOW)
    }

    /// What `generation`, while it was only watched, would have done: decision points by the band that stood and the
    /// band that its guess would have given, summed over CPUs.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn beside(&self, generation: u32) -> Result<[[u64; BANDS]; BANDS], DatapathError> {
        let mut sums = [[0; BANDS]; BANDS];
        let kept = self.kept()?;
        let of = |beside: &&Beside| beside.generation == generation;
        for beside in kept.iter().map(|kept| &kept.counts.beside).filter(of) {
            for (sum, count) in sums.iter_mut().flatten().zip(beside.bands.as_flattened()) {
                *sum += count;
            }
        }
        Ok(sums)
    }

    fn head(&self, at: u32) -> Result<Option<ActiveTable>, DatapathError> {
        let fault = |source| DatapathError::Map {
            name: names::MODEL,
            source,
        };
        let slot = match self.model()?.get(&at, 0) {
            Ok(slot) => slot,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(source) => return Err(fault(source)),
        };
        let slot = Map::from_map_data(slot)
            .and_then(Array::<_, Table>::try_from)
            .map_err(fault)?;
        let table = read(&slot).map_err(fault)?;
        Ok((table.trees > 0).then_some(ActiveTable {
            generation: table.generation,
            trees: table.trees,
            nodes: table.node_count,
            depth: table.depth,
        }))
    }

    fn model(&self) -> Result<ArrayOfMaps<MapData>, DatapathError> {
        ArrayOfMaps::try_from(self.map(names::MODEL)?).map_err(|source| DatapathError::Map {
            name: names::MODEL,
            source,
        })
    }
}

/// Room for the copies that a debug build makes of a table on its way out of aya: eleven or so.
const READING_STACK_BYTES: usize = 32 * size_of::<Table>();

/// The table in `slot`, read on a stack of its own: aya hands values out by value, and in a debug build that takes 1.5 of
/// the 2 MiB that an ordinary thread has.
fn read(slot: &Array<MapData, Table>) -> Result<Box<Table>, MapError> {
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("table".to_owned())
            .stack_size(READING_STACK_BYTES)
            .spawn_scoped(scope, || slot.get(&0, 0).map(Box::new))?;
        match reader.join() {
            Ok(table) => table,
            Err(panic) => resume_unwind(panic),
        }
    })
}
