//! Where an instance of treeline keeps its pins, records and models.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    datapath::Order,
    ingress::{Downlink, Ingress},
    qdisc::{RootChoice, Saved},
};

/// Where the BPF file system is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// A named set of programs, maps and models; hosts have one, tests have many.
#[derive(Clone, Debug)]
pub struct Instance {
    name: String,
}

/// Why an instance's files could not be used.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The name would not be one file name.
    #[error("instance name {0:?} must be 1 to 32 letters, digits, '-' or '_'")]
    BadName(String),
    /// A file operation failed.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was attempted.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A record is not what this version writes.
    #[error("{} is damaged; remove it and run `treeline down` and `up` again", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Another agent serves this instance.
    #[error("an agent is already running for instance {name:?} (pid {pid})")]
    AgentRunning {
        /// The instance.
        name: String,
        /// The other agent.
        pid: u32,
    },
}

/// What `up` did to an interface, so that `down` can undo it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Name of the interface when it was brought up.
    pub name: String,
    /// Its index, which names its pins.
    pub ifindex: u32,
    /// Rate of the hierarchy in bits per second; `None` where nothing is shaped.
    pub rate_bps: Option<u64>,
    /// What stands at the root.
    #[serde(default)]
    pub root: RootChoice,
    /// Leaf qdisc in use; where the root is kept, the qdisc that sorts.
    pub leaf: String,
    /// How egress is hooked.
    pub egress_hook: EgressHook,
    /// How ingress is hooked; `None` if another XDP program is there.
    pub ingress_hook: Option<IngressHook>,
    /// Whether the `clsact` qdisc is ours to remove.
    pub added_clsact: bool,
    /// The root qdisc to restore.
    pub saved: Saved,
    /// Place of the egress program among others.
    #[serde(default)]
    pub order: Order,
    /// What ingress was to do.
    #[serde(default)]
    pub ingress: Ingress,
    /// How ingress is shaped.
    #[serde(default)]
    pub downlink: Option<Downlink>,
}

/// How the egress program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressHook {
    /// A TCX link (kernel 6.6 and later).
    Tcx,
    /// A filter of the `clsact` qdisc.
    Clsact,
}

/// How the ingress program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IngressHook {
    /// In the driver.
    Xdp,
    /// In the network stack.
    XdpGeneric,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
        }
    }
}

impl Instance {
    /// The instance called `name`.
    ///
    /// # Errors
    /// If the name is not fit for a file name.
    pub fn new(name: &str) -> Result<Self, InstanceError> {
        let plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !plain || name.is_empty() || name.len() > 32 {
            return Err(InstanceError::BadName(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command line for this instance.
    pub fn command(&self, arguments: &str) -> String {
        match self.name.as_str() {
            "default" => format!("treeline {arguments}"),
            name => format!("treeline --instance {name} {arguments}"),
        }
    }

    /// Pins of maps, programs and links.
    pub fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("treeline").join(&self.name)
    }

    /// Locks and interface records: gone after a reboot, as what they describe is.
    pub fn runtime(&self) -> PathBuf {
        Path::new("/run/treeline").join(&self.name)
    }

    /// Models and the journal.
    pub fn state(&self) -> PathBuf {
        Path::new("/var/lib/treeline").join(&self.name)
    }

    /// Directory of the model registry.
    pub fn models(&self) -> PathBuf {
        self.state().join("models")
    }

    /// The agent's journal.
    pub fn journal(&self) -> PathBuf {
        self.state().join("journal.jsonl")
    }

    /// The journal of what was decided about models.
    pub fn decisions(&self) -> PathBuf {
        self.state().join("decisions.jsonl")
    }

    /// What watching has come to.
    pub fn advice(&self) -> PathBuf {
        self.state().join("advice.json")
    }

    /// Creates a directory and its parents.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn ensure(path: &Path) -> Result<(), InstanceError> {
        fs::create_dir_all(path).map_err(|source| InstanceError::Io {
            op: "create directory",
            path: path.to_owned(),
            source,
        })
    }

    /// Held while interfaces are brought up or down.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn lock(&self) -> Result<File, InstanceError> {
        self.lock_file("lock")
    }

    /// Held while a model is handed to the kernel.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn model_lock(&self) -> Result<File, InstanceError> {
        self.lock_file("model.lock")
    }

    fn lock_file(&self, name: &str) -> Result<File, InstanceError> {
        Self::ensure(&self.runtime())?;
        let path = self.runtime().join(name);
        let file = open_lock(&path)?;
        file.lock().map_err(|source| InstanceError::Io {
            op: "lock",
            path,
            source,
        })?;
        Ok(file)
    }

    /// Held by the agent as long as it lives; the kernel frees it when the agent dies.
    ///
    /// # Errors
    /// [`InstanceError::AgentRunning`] if another agent holds it.
    pub fn agent_lock(&self) -> Result<File, InstanceError> {
        Self::ensure(&self.runtime())?;
        let path = self.runtime().join("agent.pid");
        let io = |op, source| InstanceError::Io {
            op,
            path: path.clone(),
            source,
        };
        let mut file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&mut file).unwrap_or(0);
                return Err(InstanceError::AgentRunning {
                    name: self.name.clone(),
                    pid,
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", source)),
        }
        file.set_len(0).map_err(|source| io("write", source))?;
        writeln!(file, "{}", std::process::id()).map_err(|source| io("write", source))?;
        Ok(file)
    }

    /// Pid of the agent that serves this instance, if one does.
    pub fn agent_pid(&self) -> Option<u32> {
        let path = self.runtime().join("agent.pid");
        let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read_pid(&mut file),
            _ => None,
        }
    }

    /// Where the agent answers.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime().join("control.sock")
    }

    fn record_path(&self, ifindex: u32) -> PathBuf {
        self.runtime().join(format!("interface-{ifindex}.json"))
    }

    /// Records of all interfaces that are up, by index.
    ///
    /// # Errors
    /// If a record can't be read or is damaged.
    pub fn records(&self) -> Result<Vec<Record>, InstanceError> {
        let directory = self.runtime();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(InstanceError::Io {
                    op: "list",
                    path: directory,
                    source,
                });
            }
        };
        let mut records = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with("interface-") && name.ends_with(".json") {
                records.extend(read_record(&path)?);
            }
        }
        records.sort_by_key(|record: &Record| record.ifindex);
        Ok(records)
    }

    /// Writes an interface's record.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn save_record(&self, record: &Record) -> Result<(), InstanceError> {
        Self::ensure(&self.runtime())?;
        let path = self.record_path(record.ifindex);
        let text =
            serde_json::to_vec_pretty(record).map_err(|source| InstanceError::BadRecord {
                path: path.clone(),
                source,
            })?;
        let partial = path.with_extension("partial");
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|source| InstanceError::Io {
                op: "write",
                path,
                source,
            })
    }

    /// Removes an interface's record.
    ///
    /// # Errors
    /// If the file system refuses; a missing record is fine.
    pub fn remove_record(&self, ifindex: u32) -> Result<(), InstanceError> {
        let path = self.record_path(ifindex);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(InstanceError::Io {
                op: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }
}

fn open_lock(path: &Path) -> Result<File, InstanceError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|source| InstanceError::Io {
            op: "open",
            path: path.to_owned(),
            source,
        })
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// `None` if it is gone: another command may take the interface down between the listing and this.
fn read_record(path: &Path) -> Result<Option<Record>, InstanceError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(InstanceError::Io {
                op: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let record = serde_json::from_slice(&text).map_err(|source| InstanceError::BadRecord {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_directories() {
        assert_eq!(Instance::new("edge-1").unwrap().name(), "edge-1");
        for bad in ["", "..", "a/b", "a.b", &"x".repeat(33)] {
            assert!(Instance::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_record_that_is_gone_when_it_is_read_is_none_and_a_damaged_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("interface-7.json");
        assert!(read_record(&path).unwrap().is_none());
        fs::write(&path, "{").unwrap();
        let error = read_record(&path).unwrap_err();
        assert!(matches!(error, InstanceError::BadRecord { .. }), "{error}");
    }
}
