//! Downloads packages of chosen suites, without touching apt's configuration.
//!
//! The version that fits the compiler, or a kernel to test on, may be in a suite that the
//! machine does not follow. So apt is given private lists for that suite, from the mirror
//! that the machine already uses, and checks signatures as ever.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{child, machine::Machine};

const LIMIT: Duration = Duration::from_secs(300);
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where Rust's newer versions are first, then everywhere else.
const SUITES: [&str; 2] = ["trixie-backports", "trixie"];

/// apt with its lists, cache and sources in a folder of our own.
struct Apt<'a> {
    machine: &'a Machine,
    folder: PathBuf,
}

/// One suite of one mirror, its lists fetched.
pub(crate) struct Suite<'a> {
    apt: &'a Apt<'a>,
    sources: [String; 2],
}

/// Downloads `package` in the version of `release` from the first suite that has it.
pub(super) fn download(machine: &Machine, package: &str, release: &str) -> Result<PathBuf> {
    let release_file = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suites = suites(codename(&release_file));
    let what = format!("{package} {release}");
    from_first(machine, &suites, &what, |suite| {
        let known = child::output(suite.command("apt-cache").args(["madison", package]))?;
        let version = matching_version(&known, release)
            .with_context(|| format!("has no {package} {release}"))?;
        suite.download(package, Some(version))
    })
}

/// Where programs for this machine are: in its own suite before all others.
pub(crate) fn suites_for_this_machine() -> Vec<String> {
    let release_file = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let own = codename(&release_file).map(str::to_owned);
    own.into_iter().chain(suites(None)).collect()
}

/// What `take` gets from the first suite where it succeeds.
pub(crate) fn from_first<T>(
    machine: &Machine,
    suites: &[String],
    what: &str,
    take: impl Fn(&Suite<'_>) -> Result<T>,
) -> Result<T> {
    let folder = machine.scratch().join("apt");
    for part in ["lists/partial", "cache/archives/partial", "no-parts"] {
        fs::create_dir_all(folder.join(part))
            .with_context(|| format!("cannot make {}", folder.join(part).display()))?;
    }
    let apt = Apt { machine, folder };
    let mirrors = apt.mirrors()?;
    if mirrors.is_empty() {
        bail!("apt has no source of Debian's on this machine");
    }
    let mut tried = Vec::new();
    for mirror in &mirrors {
        for suite in suites {
            match apt.follow(mirror, suite).and_then(|suite| take(&suite)) {
                Ok(taken) => return Ok(taken),
                Err(error) => tried.push(format!("{suite}: {error:#}")),
            }
        }
    }
    bail!("no suite gave {what}\n    {}", tried.join("\n    "));
}

impl Apt<'_> {
    /// The base addresses of the Debian archives that this machine is set up with.
    fn mirrors(&self) -> Result<Vec<String>> {
        let format = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)";
        let targets = ["indextargets", "--format", format, "Created-By: Packages"];
        let known = child::output(self.machine.command("apt-get").args(targets))?;
        let known = mirrors(&known);
        if !known.is_empty() {
            return Ok(known);
        }
        // apt names only the archives whose lists it has, and a fresh machine has none.
        let mut update = self.command("apt-get", &[]);
        child::logged(
            update.arg("update"),
            LIMIT,
            &self.machine.log("apt-own-sources"),
        )?;
        Ok(mirrors(&child::output(
            self.command("apt-get", &[]).args(targets),
        )?))
    }

    /// Fetches the lists of a suite.
    fn follow(&self, mirror: &str, suite: &str) -> Result<Suite<'_>> {
        let list = self.folder.join("sources.list");
        let signed = if fs::exists(KEYRING).unwrap_or(false) {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        fs::write(&list, format!("deb {signed}{mirror} {suite} main\n"))
            .with_context(|| format!("cannot write {}", list.display()))?;
        let sources = [
            format!("Dir::Etc::sourcelist={}", list.display()),
            format!(
                "Dir::Etc::sourceparts={}",
                self.folder.join("no-parts").display()
            ),
        ];
        child::logged(
            self.command("apt-get", &sources)
                .args(["--error-on=any", "update"]),
            LIMIT,
            &self.machine.log(&format!("apt-{suite}")),
        )?;
        Ok(Suite { apt: self, sources })
    }

    fn command(&self, program: &str, options: &[String]) -> Command {
        let private = [
            format!("Dir::State::Lists={}", self.folder.join("lists").display()),
            format!("Dir::Cache={}", self.folder.join("cache").display()),
            // apt's own user can't enter a folder in somebody's home.
            "APT::Sandbox::User=root".to_owned(),
        ];
        let mut command = self.machine.command(program);
        for option in private.iter().chain(options) {
            command.args(["-o", option]);
        }
        command
    }
}

impl Suite<'_> {
    /// Names of packages that start so; those installed here are among them.
    pub(crate) fn names(&self, start: &str) -> Result<Vec<String>> {
        let names = child::output(self.command("apt-cache").args(["pkgnames", start]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package, without `version` the newest.
    pub(crate) fn download(&self, package: &str, version: Option<&str>) -> Result<PathBuf> {
        let exact = version.map_or_else(
            || package.to_owned(),
            |version| format!("{package}={version}"),
        );
        child::logged(
            self.command("apt-get")
                .args(["download", &exact])
                .current_dir(&self.apt.folder),
            LIMIT,
            &self.apt.machine.log("apt-download"),
        )?;
        self.downloaded(package)
    }

    /// The file's name encodes the version in apt's own way, so it is looked for.
    fn downloaded(&self, package: &str) -> Result<PathBuf> {
        let prefix = format!("{package}_");
        let folder = &self.apt.folder;
        folder
            .read_dir()
            .with_context(|| format!("cannot list {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.extension().is_some_and(|extension| extension == "deb")
                    && path
                        .file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with(prefix.as_str()))
            })
            .with_context(|| format!("apt left no {prefix}….deb"))
    }

    fn command(&self, program: &str) -> Command {
        self.apt.command(program, &self.sources)
    }
}

/// Reads lines of `origin|label|component|address`.
fn mirrors(targets: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in targets.lines() {
        let mut fields = line.splitn(4, '|');
        let head = [fields.next(), fields.next(), fields.next()];
        if head == [Some("Debian"), Some("Debian"), Some("main")]
            && let Some(address) = fields.next()
            && !found.iter().any(|known| known == address)
        {
            found.push(address.to_owned());
        }
    }
    found
}

/// Reads lines of `package | version | source`; Debian's version goes on after `release`.
fn matching_version<'a>(madison: &'a str, release: &str) -> Option<&'a str> {
    madison.lines().find_map(|line| {
        let version = line.split('|').nth(1)?.trim();
        let rest = version.strip_prefix(release)?;
        rest.starts_with(['+', '-', '~']).then_some(version)
    })
}

fn codename(os_release: &str) -> Option<&str> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"'))
}

fn suites(codename: Option<&str>) -> Vec<String> {
    let mut suites = SUITES.map(str::to_owned).to_vec();
    let own = codename
        .into_iter()
        .flat_map(|name| [format!("{name}-backports"), name.to_owned()]);
    for suite in own.chain(["sid".to_owned()]) {
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    suites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_main_archive_serves_and_only_once() {
        let targets = "Debian|Debian|main|http://mirror.example/debian/\n\
            Debian|Debian-Security|main|http://mirror.example/debian-security/\n\
            Debian|Debian|contrib|http://mirror.example/contrib/\n\
            . nodistro|. nodistro|main|https://other.example/\n\
            Debian|Debian|main|http://mirror.example/debian/\n";
        assert_eq!(mirrors(targets), ["http://mirror.example/debian/"]);
    }

    #[test]
    fn the_package_must_be_of_exactly_the_compilers_version() {
        let madison = "  rust-src | 1.96.1+dfsg1-2~bpo13+1 | mirror trixie-backports/main\n\
            \x20 rust-src | 1.95.0+dfsg1-2~bpo13+1 | mirror trixie-backports/main\n";
        assert_eq!(
            matching_version(madison, "1.95.0"),
            Some("1.95.0+dfsg1-2~bpo13+1")
        );
        assert_eq!(matching_version(madison, "1.95"), None);
        assert_eq!(matching_version(madison, "1.97.0"), None);
        assert_eq!(matching_version("", "1.95.0"), None);
    }

    #[test]
    fn each_suite_is_tried_once() {
        let trixie = suites(codename("ID=debian\nVERSION_CODENAME=trixie\n"));
        assert_eq!(trixie, ["trixie-backports", "trixie", "sid"]);
        let bookworm = suites(codename("VERSION_CODENAME=\"bookworm\"\n"));
        assert!(
            bookworm.contains(&"bookworm-backports".to_owned()),
            "{bookworm:?}"
        );
        assert_eq!(suites(None), trixie);
    }
}
