//! The replaying programs: loaded for one capture, run on one packet at a time.

use std::collections::{BTreeSet, HashSet};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use scheduler_common::{
    counter::{Counter, PerCpu},
    flow::{FlowSet, Hashing, Story, WAYS, story_of},
    names,
    replay::Moment,
    sample::{Hook, Sample},
    settings::Settings,
};
use zerocopy::FromBytes as _;

use super::ReplayError;
use crate::dataset::Readings;

/// The object with the captures' clock, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/treeline-replay"));

/// Room for flows: many more than most captures have alive at once, few enough to look through.
const SETS: u32 = (1 << 17) / WAYS as u32;

/// Programs and maps of one replay; they go with it.
pub(super) struct Programs {
    ebpf: Ebpf,
    moment: Array<MapData, Moment>,
    flows: Array<MapData, FlowSet>,
    stories: Array<MapData, Story>,
    samples: RingBuf<MapData>,
    hashing: Hashing,
    settings: Settings,
}

impl Programs {
    /// Loads them afresh: no flow, no history, a secret of their own.
    pub(super) fn load(settings: &Settings) -> Result<Self, ReplayError> {
        let load = |source| ReplayError::Load {
            source: Box::new(source),
        };
        let hashing = Hashing {
            multipliers: rand::random(),
            sample_key: rand::random(),
            set_mask: SETS - 1,
            _pad: 0,
        };
        let mut ebpf = EbpfLoader::new()
            .override_global("SECRET", &hashing, true)
            .map_max_entries(names::FLOWS, SETS)
            .map_max_entries(names::STORIES, SETS * WAYS as u32)
            .load(OBJECT)
            .map_err(load)?;
        // First: programs are loaded with the maps that the object still holds.
        egress(&mut ebpf)?.load()?;
        ingress(&mut ebpf)?.load()?;
        array::<Settings>(&mut ebpf, names::SETTINGS)?.set(0, settings, 0)?;
        let (moment, flows) = (
            array(&mut ebpf, names::MOMENT)?,
            array(&mut ebpf, names::FLOWS)?,
        );
        let stories = array(&mut ebpf, names::STORIES)?;
        let samples = RingBuf::try_from(take(&mut ebpf, names::SAMPLES)?)?;
        Ok(Self {
            ebpf,
            moment,
            flows,
            stories,
            samples,
            hashing,
            settings: *settings,
        })
    }

    /// Runs one frame; false if the kernel makes no packet of it.
    pub(super) fn run(
        &mut self,
        hook: Hook,
        frame: &[u8],
        moment: Moment,
    ) -> Result<bool, ReplayError> {
        self.moment.set(0, moment, 0)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        let outcome = match hook {
            Hook::Egress => egress(&mut self.ebpf)?.test_run(options),
            Hook::Ingress => ingress(&mut self.ebpf)?.test_run(options),
        };
        match outcome {
            Ok(_result) => Ok(true),
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next sample, if there is one.
    pub(super) fn next_sample(&mut self) -> Option<Sample> {
        let record = self.samples.next()?;
        Some(Sample::read_from_bytes(&record).expect("programs and agent are of one build"))
    }

    /// What stands in the flow table at `now_ns`.
    pub(super) fn readings(
        &self,
        (wanted, sets): (HashSet<u64>, BTreeSet<u32>),
        now_ns: u64,
    ) -> Result<Readings, ReplayError> {
        let mut readings = Readings::of(wanted);
        for index in sets {
            let set = self.flows.get(&index, 0)?;
            let story = |way| self.stories.get(&story_of(index, way), 0);
            readings.take(&set, story, (&self.hashing, &self.settings), now_ns)?;
        }
        Ok(readings)
    }

    /// What was counted.
    pub(super) fn counted(&self, counter: Counter) -> Result<u64, ReplayError> {
        let map = self.ebpf.map(names::PER_CPU);
        let map = PerCpuArray::<_, PerCpu>::try_from(map.ok_or(MISSING)?)?;
        let mut sum = 0;
        for hook in [Hook::Egress, Hook::Ingress] {
            let cpus = map.get(&(hook as u32), 0)?;
            let counts = cpus.iter().map(|cpu| &cpu.kept.counts.counters);
            sum += counts.map(|counts| counts[counter as usize]).sum::<u64>();
        }
        Ok(sum)
    }
}

const MISSING: ReplayError = ReplayError::MissingInObject;

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, ReplayError> {
    ebpf.take_map(name).ok_or(MISSING)
}

fn array<T: aya::Pod>(ebpf: &mut Ebpf, name: &str) -> Result<Array<MapData, T>, ReplayError> {
    Ok(Array::try_from(take(ebpf, name)?)?)
}

fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, ReplayError> {
    let program = ebpf.program_mut(names::EGRESS).ok_or(MISSING)?;
    Ok(program.try_into()?)
}

fn ingress(ebpf: &mut Ebpf) -> Result<&mut Xdp, ReplayError> {
    let program = ebpf.program_mut(names::INGRESS).ok_or(MISSING)?;
    Ok(program.try_into()?)
}
