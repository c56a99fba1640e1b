//! The bench's steps: beds, workloads, loads, and the files that come of them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bed::{
    agent::Treeline,
    beds::Bed,
    machine::{self, Awake},
    options::Format,
    stats::millis,
    traffic::{self, Base},
    wait,
    workload::{Group, Workload},
};

use crate::{
    bars,
    cell::{self, LEARNING_EXTRA, Place, WARM_UP},
    change,
    options::{BedKind, Options},
    page,
    progress::Progress,
    report::{Report, SCHEMA, Setting},
    saturation,
    scheme::Scheme,
};

/// A run lasts longer than its messages arrive: sockets, the drain, `tc`.
const AROUND_A_RUN: Duration = Duration::from_secs(2);

/// What all parts of the bench share.
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) schemes: Vec<Scheme>,
    pub(crate) progress: Progress,
    pub(crate) log: PathBuf,
    binary: PathBuf,
    awake: Awake,
}

impl<'a> Bench<'a> {
    /// A bench that follows these options.
    pub(crate) fn of(options: &'a Options, progress: Progress) -> Self {
        let beside = || env::current_exe().map(|path| path.with_file_name("treeline"));
        Self {
            options,
            schemes: options.schemes(),
            progress,
            log: options.out.join("fct-agent.log"),
            awake: Awake::keep(),
            // Where this process can't tell where it is, the name has to do.
            binary: options
                .treeline
                .clone()
                .unwrap_or_else(|| beside().unwrap_or_else(|_unknown| PathBuf::from("treeline"))),
        }
    }

    /// An instance of treeline of its own, so that nothing learned elsewhere acts.
    pub(crate) fn treeline<'b>(&self, bed: &'b Bed, what: &str) -> Treeline<'b> {
        Treeline {
            binary: self.binary.clone(),
            instance: format!("fct-{}-{what}", std::process::id()),
            namespace: bed.shaped(),
            rate_bps: self.options.rate,
        }
    }
}

/// Runs the bench and writes its files.
///
/// # Errors
/// When a step fails; everything that was set up is removed all the same, and what was measured so far is written.
pub(crate) fn run(options: &Options) -> Result<()> {
    wait::catch_interrupts()?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let planned = planned(options, options.schemes().len());
    let mut bench = Bench::of(options, Progress::new(planned));
    ensure!(
        bench.binary.exists() || !bench.schemes.iter().any(|scheme| scheme.needs_treeline()),
        "there is no {}; build it with `cargo build --release -p treeline`, or name it with --treeline",
        bench.binary.display()
    );
    fs::write(&bench.log, "").with_context(|| format!("cannot write {}", bench.log.display()))?;
    let mut report = Report {
        schema: SCHEMA,
        setting: setting(&bench)?,
        cells: Vec::new(),
        saturation: Vec::new(),
        changes: Vec::new(),
        bars: Vec::new(),
    };
    let measured = measure(&mut bench, &mut report);
    finish(options, &mut report)?;
    measured
}

fn measure(bench: &mut Bench<'_>, report: &mut Report) -> Result<()> {
    for kind in bench.options.beds() {
        let bed = match kind {
            BedKind::Host => Bed::host()?,
            BedKind::Router => Bed::router()?,
        };
        bed.limit_super_packets(bench.options.gso_max_bytes())?;
        let base = traffic::measure_base(&bed)?;
        bench.progress.say(&format!(
            "bed {}: on the idle link a tiny message takes {:.2} ms, with a handshake {:.2} ms",
            kind.name(),
            millis(base.kept),
            millis(base.fresh)
        ));
        for workload in bench.options.workloads() {
            measure_workload(bench, report, (kind, &bed, base), workload)?;
        }
        if bench.options.saturate {
            let place = Place::new(bench, kind, &bed, base, "saturation");
            report.saturation.push(saturation::measure(bench, &place)?);
        }
    }
    Ok(())
}

fn measure_workload(
    bench: &mut Bench<'_>,
    report: &mut Report,
    (kind, bed, base): (BedKind, &Bed, Base),
    workload: &'static Workload,
) -> Result<()> {
    let place = Place::new(bench, kind, bed, base, workload.name);
    if workload.group == Group::Changing {
        report
            .changes
            .push(change::measure(bench, &place, workload)?);
        return Ok(());
    }
    let loads = bench.options.loads();
    let learned = match loads.first() {
        Some(load) if bench.schemes.contains(&Scheme::Treeline) => {
            cell::learn(bench, &place, workload, *load)?
        }
        _ => None,
    };
    for load in loads {
        let measured = cell::measure(bench, &place, workload, load, learned.clone())?;
        report.cells.push(measured);
        // What is measured is measured, whatever comes after.
        write(
            &bench.options.out.join("fct.json"),
            &serde_json::to_string_pretty(&report)?,
        )?;
    }
    Ok(())
}

fn finish(options: &Options, report: &mut Report) -> Result<()> {
    report.bars = bars::judge(report);
    let json = serde_json::to_string_pretty(&report)?;
    write(&options.out.join("fct.json"), &json)?;
    write(&options.out.join("fct.html"), &page::render(report)?)?;
    let mut result = match options.format {
        Format::Text => report.to_text(),
        Format::Json => json,
    };
    if options.bars && options.format == Format::Text {
        result.push_str(&bars::to_text(&report.bars));
    }
    #[expect(clippy::print_stdout, reason = "the result is what the command is for")]
    {
        println!("{result}");
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What the bench takes by the nominal lengths of its runs.
fn planned(options: &Options, schemes: usize) -> Duration {
    let run = Duration::from_secs(options.run_s().into()) + AROUND_A_RUN;
    let learning = Duration::from_secs(options.learning_s().into()) + LEARNING_EXTRA;
    let change = Duration::from_secs(options.change.into()) + AROUND_A_RUN;
    let cells = options.loads().len() as u32 * options.rounds() * schemes as u32;
    let of = |workload: &'static Workload| match workload.group {
        Group::Changing => learning + change * change::SCHEMES.len() as u32,
        Group::NothingToLearn | Group::Learnable | Group::Kept => learning + run * cells,
    };
    options.workloads().into_iter().map(of).sum::<Duration>() * options.beds().len() as u32
}

pub(crate) fn run_length(options: &Options) -> Duration {
    Duration::from_secs(options.run_s().into()) + AROUND_A_RUN
}

fn setting(bench: &Bench<'_>) -> Result<Setting> {
    let options = bench.options;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?
        .trim()
        .to_owned();
    let words: Vec<String> = env::args().skip(1).collect();
    Ok(Setting {
        command: format!("treeline-bench-fct {}", words.join(" "))
            .trim_end()
            .to_owned(),
        kernel,
        processors: std::thread::available_parallelism()?.get(),
        real_time: machine::is_real_time()?,
        awake: bench.awake.is_kept(),
        congestion_control: bed::netns::CONGESTION_CONTROL,
        seed: options.seed,
        rate_bps: options.rate,
        scale: options.scale,
        rounds: options.rounds(),
        run_s: options.run_s(),
        warm_up_s: WARM_UP.as_secs_f64(),
        learning_s: options.learning_s(),
        gso_max_bytes: options.gso_max_bytes(),
        treeline_cuts: options.treeline_cuts,
    })
}
