//! The file system that a kernel boots into: busybox, modules and the tests.

use std::{
    fs::{self, File, Permissions},
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    bench, cards,
    kernels::Kernel,
    modules,
    outcome::{BEGIN, END},
    suite::Suite,
};
use crate::{child, machine::Machine};

/// Programs of the host that the tests call; busybox's own of these names do less.
const PROGRAMS: [&str; 4] = ["ip", "tc", "install", "wg"];
const MOUNT_POINTS: [&str; 9] = [
    "proc", "sys", "dev", "run", "tmp", "root", "etc", "modules", "var/lib",
];
/// Beside the programs of a build are its tests' `deps/`: so a test finds `treeline`.
const BUILD: &str = "build";

/// Accounts that servers look for; without a password, as nobody logs in but by a key.
const ACCOUNTS: [(&str, &str); 2] = [
    (
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];

/// Makes the image, with the suites and the programs that they call beside the usual ones, and returns its path.
pub(super) fn make(
    machine: &Machine,
    kernel: &Kernel,
    (suites, calls): (&[Suite], &[PathBuf]),
    treeline: &Path,
) -> Result<PathBuf> {
    let folder = machine.scratch().join("vm").join(&kernel.series);
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot remove the last image's files")?;
    }
    let root = Root(folder.join("root"));
    for place in MOUNT_POINTS {
        root.folder(place)?;
    }
    for program in ["busybox"].iter().chain(&PROGRAMS) {
        let from = machine
            .find_as_root(program)
            .with_context(|| format!("`{program}` is not installed here"))?;
        root.program(&from, &format!("bin/{program}"))?;
    }
    for program in calls {
        root.called(program)?;
    }
    for (place, text) in ACCOUNTS {
        root.write(place, text.as_bytes())?;
    }
    root.program(treeline, &format!("{BUILD}/treeline"))?;
    for suite in suites {
        root.program(&suite.executable, &format!("{BUILD}/deps/{}", suite.name))?;
    }
    let modules = modules::wanted(&kernel.modules)?;
    for module in &modules {
        root.write(&format!("modules/{}.ko", module.name), &module.bytes)?;
    }
    let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    let facts = facts(&names, machine.is_root());
    root.write("init", script(&names, &facts, suites).as_bytes())?;
    executable(&root.0.join("init"))?;
    let image = folder.join("initramfs");
    root.pack(&image)?;
    Ok(image)
}

/// The folder that becomes the file system.
struct Root(PathBuf);

impl Root {
    fn folder(&self, place: &str) -> Result<()> {
        let path = self.0.join(place);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
    }

    fn write(&self, place: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(place);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    fn copy(&self, from: &Path, place: &Path) -> Result<PathBuf> {
        let path = self.0.join(place.strip_prefix("/").unwrap_or(place));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::copy(from, &path).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(path)
    }

    /// Copies a program without its debug information, and the libraries it loads.
    fn program(&self, from: &Path, place: &str) -> Result<()> {
        let path = self.copy(from, Path::new(place))?;
        if !is_compiled(&path)? {
            return Ok(());
        }
        child::output(Command::new("strip").arg("--strip-debug").arg(&path))?;
        for library in libraries(from)? {
            if !self
                .0
                .join(library.strip_prefix("/").unwrap_or(&library))
                .exists()
            {
                self.copy(&library, &library)?;
            }
        }
        Ok(())
    }

    /// Copies a program to the place that it has here; a name for another one stays that.
    fn called(&self, program: &Path) -> Result<()> {
        let place = program.strip_prefix("/").unwrap_or(program);
        let Ok(target) = fs::read_link(program) else {
            return self.program(program, &place.to_string_lossy());
        };
        let path = self.0.join(place);
        let folder = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        symlink(target, &path).with_context(|| format!("cannot make {}", path.display()))
    }

    fn pack(&self, image: &Path) -> Result<()> {
        let file =
            File::create(image).with_context(|| format!("cannot write {}", image.display()))?;
        let mut names = Command::new("find")
            .arg(".")
            .current_dir(&self.0)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run `find`")?;
        let list = names.stdout.take().context("`find` has no output")?;
        let packed = Command::new("cpio")
            .args(["--create", "--format=newc", "--owner=+0:+0", "--quiet"])
            .current_dir(&self.0)
            .stdin(list)
            .stdout(file)
            .status()
            .context("cannot run `cpio`")?;
        let listed = names.wait().context("lost `find`")?;
        ensure!(
            packed.success() && listed.success(),
            "`find` ({listed}) or `cpio` ({packed}) failed"
        );
        Ok(())
    }
}

/// Whether it is machine code, and no script.
fn is_compiled(path: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(file.read_exact(&mut magic).is_ok() && magic == *b"\x7fELF")
}

fn executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// What `ldd` lists; nothing for a program that loads none.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .stdin(Stdio::null())
        .output()
        .context("cannot run `ldd`")?;
    // It fails for static programs.
    Ok(paths(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in `libz.so.1 => /lib/libz.so.1 (0x…)` and `/lib64/ld-linux.so.2 (0x…)`.
fn paths(listed: &str) -> Vec<PathBuf> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// Names and values by which the tests know what must work here: what they then skip is a failure.
fn facts(modules: &[&str], root: bool) -> Vec<(&'static str, String)> {
    let mut facts = vec![("TREELINE_MODULES", modules.join(","))];
    if modules.contains(&"virtio_net") {
        facts.push(("TREELINE_CABLE", cards::CABLE.join(",")));
        if root {
            facts.push(("TREELINE_QUEUES", cards::WITH_QUEUES.to_owned()));
        }
    }
    facts
}

fn script(modules: &[&str], facts: &[(&str, String)], suites: &[Suite]) -> String {
    let mut script = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mount -t proc proc /proc\n\
         /bin/busybox --install -s /bin 2>/dev/null\n\
         export PATH=/bin:/usr/bin:/usr/sbin HOME=/root TREELINE_REQUIRE_ROOT=1 RUST_BACKTRACE=0\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t tmpfs tmpfs /run\n\
         mount -t tmpfs tmpfs /tmp\n\
         exec </dev/null >/dev/console 2>&1\n\
         ip link set lo up\n\
         for module in {}; do insmod /modules/$module.ko; done\n\
         rm -r /modules\n\
         cd /root\n",
        modules.join(" ")
    );
    for (name, value) in facts {
        script.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    for Suite {
        name, arguments, ..
    } in suites
    {
        let arguments: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        script.push_str(&format!(
            "echo; echo '{BEGIN}{name}'\n\
             /{BUILD}/deps/{name} {}\n\
             echo \"{END}{name} $?\"\n",
            arguments.join(" ")
        ));
    }
    script.push_str(&bench::send_back());
    script.push_str("poweroff -f\n");
    script
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibz.so.1 => /lib/libz.so.1 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            paths(listed),
            ["/lib/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
        assert!(paths("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn the_script_survives_a_filter_with_a_quote() {
        let suite = Suite {
            name: "integration",
            executable: "/t".into(),
            arguments: vec!["it's".to_owned()],
        };
        let facts = facts(&["veth", "virtio_net"], false);
        assert_eq!(facts.len(), 2, "{facts:?}");
        let script = script(&["veth"], &facts, &[suite]);
        let checked = Command::new("sh").args(["-n", "-c", &script]).status();
        assert!(checked.unwrap().success(), "{script}");
        assert!(script.contains(r"'it'\''s'"), "{script}");
    }
}
