//! A bench on another kernel under QEMU; what it wrote comes back over the console.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Series, emulator, initramfs,
    kernels::Kernel,
    outcome::{BEGIN, END},
    set_up,
    suite::Suite,
};
use crate::{
    console::{self, Spoken},
    machine::Machine,
};

/// Where a bench writes in the machine; its small files come back.
const OUT: &str = "/out";
/// Before and after a file that comes back, packed and in letters.
const FILE: &str = "@@ file ";
const FILE_END: &str = "@@ end of file";
/// A bench plays many rounds, and an emulated machine is slow at all but waiting.
const LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// What is to run.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    /// Name of the program.
    pub(crate) program: &'static str,
    /// Where it and `treeline` are.
    pub(crate) built: PathBuf,
    /// Programs of this machine that it calls, beside those that tests do.
    pub(crate) calls: &'a [PathBuf],
    /// Its arguments.
    pub(crate) args: &'a [OsString],
    /// Ahead of everything else on this machine, for figures beside other work.
    pub(crate) ahead: bool,
}

/// Runs a bench that is built already on each kernel, and keeps what it wrote below `target/bench/vm`.
pub(crate) fn run(machine: &Machine, series: &[Series], bench: &Bench<'_>) -> Result<()> {
    let kernels = set_up(machine, series)?;
    for kernel in &kernels {
        on_kernel(machine, kernel, bench)?;
    }
    Ok(())
}

fn on_kernel(machine: &Machine, kernel: &Kernel, bench: &Bench<'_>) -> Result<()> {
    console::say(format_args!(
        "── {} on {} under QEMU",
        bench.program, kernel.release
    ));
    let suite = Suite {
        name: bench.program,
        executable: bench.built.join(bench.program),
        arguments: arguments(bench.args),
    };
    let treeline = bench.built.join("treeline");
    let image = initramfs::make(machine, kernel, (&[suite], bench.calls), &treeline)
        .with_context(|| format!("cannot make the initramfs of kernel {}", kernel.release))?;
    let folder = machine.target.join("bench/vm").join(&kernel.series);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut heard = Heard::new(bench.program, folder);
    let mut qemu = emulator::qemu(machine, kernel, &image);
    if bench.ahead {
        qemu = ahead(machine, &qemu);
    }
    let log = machine.log(&format!("vm/bench-{}", kernel.series));
    let mut fault = None;
    let code = emulator::followed(&mut qemu, LIMIT, &log, &mut |line| {
        if let Err(error) = heard.line(line) {
            fault.get_or_insert(error);
        }
    })?;
    if let Some(error) = fault {
        return Err(error);
    }
    ensure!(
        code.is_some(),
        "no end after {}; the console is in {}",
        Spoken(LIMIT),
        log.display()
    );
    ensure!(
        heard.well,
        "{} did not end well; the console is in {}",
        bench.program,
        log.display()
    );
    Ok(())
}

/// The same command at the least niceness, for all its threads.
///
/// Not at a real-time priority: there the thread that keeps the machine's timers waits for its turn of 100 ms while both processors are busy
/// (`sched_rr_timeslice_ms`), and above the processors' threads it holds these up.
fn ahead(machine: &Machine, command: &Command) -> Command {
    let mut first = machine.command("nice");
    first
        .args(["-n", "-20"])
        .arg(command.get_program())
        .args(command.get_args());
    first
}

/// The bench's arguments, and where it finds treeline and may write.
fn arguments(args: &[OsString]) -> Vec<String> {
    let args = args.iter().map(|word| word.to_string_lossy().into_owned());
    let own = ["--treeline", "/build/treeline", "--out", OUT].map(str::to_owned);
    own.into_iter().chain(args).collect()
}

/// Commands of the machine's script that send each file back.
pub(super) fn send_back() -> String {
    format!(
        "for file in {OUT}/*.json {OUT}/*.html; do\n\
         [ -f $file ] || continue\n\
         echo \"{FILE}${{file##*/}}\"\n\
         gzip -c $file | base64\n\
         echo '{FILE_END}'\n\
         done\n"
    )
}

/// What was heard of a bench.
struct Heard {
    program: &'static str,
    folder: PathBuf,
    /// Name and letters of the file that comes in.
    file: Option<(String, String)>,
    well: bool,
}

impl Heard {
    const fn new(program: &'static str, folder: PathBuf) -> Self {
        Self {
            program,
            folder,
            file: None,
            well: false,
        }
    }

    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(name) = line.strip_prefix(FILE) {
            // Only a name: what the machine says decides no folder of this one.
            let name = Path::new(name).file_name().unwrap_or_default();
            self.file = Some((name.to_string_lossy().into_owned(), String::new()));
        } else if line == FILE_END {
            if let Some((name, letters)) = self.file.take() {
                let path = self.folder.join(name);
                unpack(&letters, &path)?;
                console::say(format_args!("wrote {}", path.display()));
            }
        } else if let Some((_, letters)) = &mut self.file {
            letters.push_str(line);
            letters.push('\n');
        } else if line.strip_prefix(END) == Some(&format!("{} 0", self.program)) {
            self.well = true;
        } else if line.strip_prefix(BEGIN) == Some(self.program) {
            self.well = false;
        }
        Ok(())
    }
}

/// Undoes `gzip | base64`.
fn unpack(letters: &str, path: &Path) -> Result<()> {
    let packed = path.with_extension("packed");
    fs::write(&packed, letters).with_context(|| format!("cannot write {}", packed.display()))?;
    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut decode = Command::new("base64")
        .arg("--decode")
        .arg(&packed)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run `base64`")?;
    let bytes = decode.stdout.take().context("`base64` has no output")?;
    let unpacked = Command::new("gzip")
        .args(["--decompress", "--stdout"])
        .stdin(bytes)
        .stdout(file)
        .status()
        .context("cannot run `gzip`")?;
    let decoded = decode.wait().context("lost `base64`")?;
    fs::remove_file(&packed).context("cannot remove a file that was unpacked")?;
    ensure!(
        decoded.success() && unpacked.success(),
        "what came back for {} is damaged",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_as_it_was() {
        let folder = std::env::temp_dir().join(format!("treeline-heard-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let text = "{\"a\": [1, 2, 3]}\n".repeat(500);
        fs::write(folder.join("sent"), &text).unwrap();
        let letters = Command::new("sh")
            .args(["-c", "gzip -c sent | base64"])
            .current_dir(&folder)
            .output()
            .unwrap();
        let mut heard = Heard::new("bench", folder.clone());
        let said = format!(
            "@@ begin bench\nround 1\n@@ end bench 0\n@@ file ../urgent.json\n{}@@ end of file",
            String::from_utf8(letters.stdout).unwrap()
        );
        for line in said.lines() {
            heard.line(line).unwrap();
        }
        assert!(heard.well);
        assert_eq!(
            fs::read_to_string(folder.join("urgent.json")).unwrap(),
            text
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_bench_that_fails_or_never_ends_did_not_end_well() {
        for said in ["@@ begin bench", "@@ begin bench\n@@ end bench 1", ""] {
            let mut heard = Heard::new("bench", PathBuf::new());
            for line in said.lines() {
                heard.line(line).unwrap();
            }
            assert!(!heard.well, "{said}");
        }
    }

    #[test]
    fn given_arguments_come_last_and_so_count() {
        let args = ["--rounds".into(), "2".into()];
        assert_eq!(
            arguments(&args).join(" "),
            "--treeline /build/treeline --out /out --rounds 2"
        );
    }
}
