//! What was decided about models: typed records in a bounded file.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use scheduler_common::class::BANDS;
use serde::{Deserialize, Serialize};

/// Version of a record.
pub const SCHEMA: u32 = 1;

/// The file turns over at this size: some ten thousand records.
const MAX_BYTES: usize = 4 << 20;

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// The agent, by what it measured.
    Agent,
    /// A person, by the command line.
    Command,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A candidate was trained; what became of it is the next record.
    Trained {
        /// Rows that it learned from.
        rows: u64,
        /// Nodes of all its trees.
        nodes: u64,
        /// Time that training took.
        train_ms: u64,
    },
    /// A candidate was not put to work.
    Refused {
        /// Rows that it learned from.
        rows: u64,
    },
    /// A candidate was put in the shadow: it is asked beside what acts, and changes nothing.
    Shadowed {
        /// Its number.
        generation: u32,
        /// Its file.
        #[schema(value_type = String)]
        file: PathBuf,
    },
    /// A candidate left the shadow without having acted.
    Dropped {
        /// Its number.
        generation: u32,
        /// Fresh rows that it was watched on.
        rows: u64,
    },
    /// The traffic, or the acting model's error, has changed.
    Drifted {
        /// `error`, or the name of a feature.
        of: String,
        /// Rows from before the change that are no longer learned from.
        forgotten: u64,
    },
    /// A candidate was put to work, after it had won in the shadow.
    Promoted {
        /// Its number.
        generation: u32,
        /// Its file.
        #[schema(value_type = String)]
        file: PathBuf,
        /// Time from model to acting: compiled, checked, written, flipped.
        flip_us: u64,
    },
    /// The acting model had lost its worth: aging rules.
    FellBack {
        /// The model that was taken out.
        generation: u32,
    },
    /// The bands of aging are cut elsewhere.
    Recut {
        /// The largest message of each band but the last.
        cuts_bytes: [u32; BANDS - 1],
    },
    /// No model acts, because a start was asked for none.
    TakenOut,
    /// A file was put to work.
    Pushed {
        /// The number that it got.
        generation: u32,
        /// Where it came from.
        #[schema(value_type = String)]
        file: PathBuf,
        /// SHA-256 of its content, in hexadecimal.
        sha256: String,
        /// Time from model to acting: compiled, checked, written, flipped.
        flip_us: u64,
    },
    /// An earlier model was put to work again, or aging.
    RolledBack {
        /// The model; `None` is aging.
        generation: Option<u32>,
    },
    /// A file was added to the registry; what acts stays.
    Imported {
        /// The number that it got.
        generation: u32,
        /// Where it came from.
        #[schema(value_type = String)]
        file: PathBuf,
        /// SHA-256 of its content, in hexadecimal.
        sha256: String,
    },
}

impl Step {
    /// The names of all, in the order of a model's life.
    pub const NAMES: [&str; 12] = [
        "trained",
        "refused",
        "shadowed",
        "dropped",
        "drifted",
        "promoted",
        "fell-back",
        "recut",
        "taken-out",
        "pushed",
        "rolled-back",
        "imported",
    ];

    /// Whether packets may go to other bands because of it, so that its record has to say how to undo it.
    pub const fn changes_policy(&self) -> bool {
        match self {
            Self::Promoted { .. }
            | Self::FellBack { .. }
            | Self::Recut { .. }
            | Self::TakenOut
            | Self::Pushed { .. }
            | Self::RolledBack { .. } => true,
            Self::Trained { .. }
            | Self::Refused { .. }
            | Self::Shadowed { .. }
            | Self::Dropped { .. }
            | Self::Drifted { .. }
            | Self::Imported { .. } => false,
        }
    }

    /// Its name, as in the file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Trained { .. } => "trained",
            Self::Refused { .. } => "refused",
            Self::Shadowed { .. } => "shadowed",
            Self::Dropped { .. } => "dropped",
            Self::Drifted { .. } => "drifted",
            Self::Promoted { .. } => "promoted",
            Self::FellBack { .. } => "fell-back",
            Self::Recut { .. } => "recut",
            Self::TakenOut => "taken-out",
            Self::Pushed { .. } => "pushed",
            Self::RolledBack { .. } => "rolled-back",
            Self::Imported { .. } => "imported",
        }
    }
}

/// One record: what, why, and how to undo it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    /// [`SCHEMA`] of who wrote it.
    pub schema: u32,
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Who.
    pub by: Actor,
    /// What.
    #[serde(flatten)]
    pub step: Step,
    /// Generation that acted before; `None` is aging.
    pub before: Option<u32>,
    /// Generation that acts from now on; `None` is aging.
    pub acting: Option<u32>,
    /// Why, in one sentence.
    pub why: String,
    /// The command that undoes it, if there is something to undo.
    pub undo: Option<String>,
}

impl Decision {
    /// A record of this moment, after which `acting` acts as before.
    pub fn now(by: Actor, step: Step, acting: Option<u32>, why: impl Into<String>) -> Self {
        Self {
            schema: SCHEMA,
            // A clock before 1970 is no reason to lose a record.
            unix_ms: UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_millis() as u64),
            by,
            step,
            before: acting,
            acting,
            why: why.into(),
            undo: None,
        }
    }

    /// Whether it says all that somebody needs who meets it: why, and for a change of policy how to undo it.
    pub fn is_whole(&self) -> bool {
        !self.why.trim().is_empty() && (!self.step.changes_policy() || self.undo.is_some())
    }

    /// The same for a step that changed what acts.
    #[must_use]
    pub fn changed(self, before: Option<u32>, undo: String) -> Self {
        Self {
            before,
            undo: Some(undo),
            ..self
        }
    }
}

/// The file of an instance; any process may append.
#[derive(Clone, Debug)]
pub struct Decisions {
    path: PathBuf,
}

/// The end of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tail {
    /// Records, the newest last.
    pub decisions: Vec<Decision>,
    /// Lines that are no records: damaged, or of a later version.
    pub unreadable: usize,
}

impl Decisions {
    /// The journal in `path`, which is made with the first record.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn append(&self, decision: &Decision) -> io::Result<()> {
        debug_assert!(decision.is_whole(), "{decision:?}");
        self.append_within(decision, MAX_BYTES)
    }

    fn append_within(&self, decision: &Decision, max_bytes: usize) -> io::Result<()> {
        let mut line = serde_json::to_vec(decision)?;
        line.push(b'\n');
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.lock())?;
        lock.lock()?;
        // Not by the library that turns the other journal over: it is silent about a disk that refuses.
        if fs::metadata(&self.path).is_ok_and(|file| file.len() >= max_bytes as u64) {
            fs::rename(&self.path, self.older())?;
        }
        let mut file = File::options().append(true).create(true).open(&self.path)?;
        file.write_all(&line)
    }

    /// A file of its own: the journal's is renamed when it turns over.
    fn lock(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// The last `count` records; none if there is no journal yet.
    ///
    /// # Errors
    /// A file is there and can't be read.
    pub fn tail(&self, count: usize) -> io::Result<Tail> {
        // Who may only read goes without: a record in the midst of being written is then unreadable.
        let lock = File::open(self.lock());
        if let Ok(lock) = &lock {
            lock.lock_shared()?;
        }
        let older = self.older();
        let mut tail = Tail::default();
        for path in [&older, &self.path] {
            for line in lines(path)? {
                match serde_json::from_str(&line) {
                    Ok(decision) => tail.decisions.push(decision),
                    Err(_no_record) => tail.unreadable += 1,
                }
            }
        }
        let surplus = tail.decisions.len().saturating_sub(count);
        tail.decisions.drain(..surplus);
        Ok(tail)
    }

    /// The file that was current before this one.
    fn older(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }
}

fn lines(path: &Path) -> io::Result<Vec<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (tempfile::TempDir, Decisions) {
        let directory = tempfile::tempdir().unwrap();
        let decisions = Decisions::new(directory.path().join("state").join("decisions.jsonl"));
        (directory, decisions)
    }

    fn refused(rows: u64) -> Decision {
        Decision::now(Actor::Agent, Step::Refused { rows }, Some(3), "no better")
    }

    /// One of each kind.
    fn all_steps() -> Vec<Step> {
        let (generation, rows, file) = (4, 1000, PathBuf::from("/tmp/m.json"));
        let sha256 = "ab".repeat(32);
        vec![
            Step::Trained {
                rows,
                nodes: 11,
                train_ms: 3,
            },
            Step::Refused { rows },
            Step::Shadowed {
                generation,
                file: file.clone(),
            },
            Step::Dropped { generation, rows },
            Step::Drifted {
                of: "error".to_owned(),
                forgotten: 7,
            },
            Step::Promoted {
                generation,
                file: file.clone(),
                flip_us: 7,
            },
            Step::FellBack { generation },
            Step::Recut {
                cuts_bytes: [1000; BANDS - 1],
            },
            Step::TakenOut,
            Step::Pushed {
                generation,
                file: file.clone(),
                sha256: sha256.clone(),
                flip_us: 8,
            },
            Step::RolledBack { generation: None },
            Step::Imported {
                generation,
                file,
                sha256,
            },
        ]
    }

    #[test]
    fn every_kind_says_why_and_each_change_of_policy_how_to_undo_it() {
        let steps = all_steps();
        let names: Vec<&str> = steps.iter().map(Step::name).collect();
        assert_eq!(names, Step::NAMES, "a kind is missing here");
        for step in steps {
            let changes = step.changes_policy();
            let without_undo = Decision::now(Actor::Agent, step.clone(), Some(4), "it lost");
            assert_eq!(without_undo.is_whole(), !changes, "{without_undo:?}");
            let undo = "treeline model rollback 3".to_owned();
            assert!(without_undo.changed(Some(3), undo.clone()).is_whole());
            let without_why = Decision::now(Actor::Agent, step, Some(4), " ");
            assert!(!without_why.changed(Some(3), undo).is_whole());
        }
    }

    #[test]
    fn every_kind_of_record_comes_back() {
        let (_directory, journal) = journal();
        assert_eq!(journal.tail(5).unwrap(), Tail::default());
        let written: Vec<Decision> = all_steps()
            .into_iter()
            .map(|step| {
                let decision = Decision::now(Actor::Command, step, Some(4), "asked for");
                decision.changed(Some(3), "treeline model rollback 3".to_owned())
            })
            .collect();
        for decision in &written {
            journal.append(decision).unwrap();
            let text = serde_json::to_value(decision).unwrap();
            assert_eq!(text["step"], decision.step.name());
        }
        assert_eq!(journal.tail(100).unwrap().decisions, written);
        assert_eq!(
            journal.tail(2).unwrap().decisions,
            written[written.len() - 2..]
        );
    }

    #[test]
    fn it_is_bounded_and_keeps_the_newest() {
        let (directory, journal) = journal();
        for rows in 0..200 {
            journal.append_within(&refused(rows), 4000).unwrap();
        }
        let kept = journal.tail(usize::MAX).unwrap();
        let rows: Vec<u64> = kept
            .decisions
            .iter()
            .map(|decision| match decision.step {
                Step::Refused { rows } => rows,
                _ => panic!("{decision:?}"),
            })
            .collect();
        assert!(rows.len() >= 20 && rows.len() < 100, "{}", rows.len());
        let newest: Vec<u64> = (200 - rows.len() as u64..200).collect();
        assert_eq!(rows, newest, "without a gap");
        let files = fs::read_dir(directory.path().join("state")).unwrap();
        let bytes: u64 = files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 10_000, "{bytes}");
    }

    #[test]
    fn a_damaged_line_costs_no_other() {
        let (_directory, journal) = journal();
        journal.append(&refused(1)).unwrap();
        let mut text = fs::read_to_string(&journal.path).unwrap();
        text.push_str("{\"half a rec\n{\"step\":\"danced\"}\n");
        fs::write(&journal.path, text).unwrap();
        journal.append(&refused(2)).unwrap();
        let tail = journal.tail(10).unwrap();
        assert_eq!((tail.decisions.len(), tail.unreadable), (2, 2));
    }

    #[test]
    fn two_who_append_at_once_do_not_mix_their_lines() {
        let (_directory, journal) = journal();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let journal = &journal;
                scope.spawn(move || {
                    for record in 0..50 {
                        journal
                            .append_within(&refused(writer * 1000 + record), 1 << 20)
                            .unwrap();
                    }
                });
            }
        });
        let tail = journal.tail(usize::MAX).unwrap();
        assert_eq!((tail.decisions.len(), tail.unreadable), (200, 0));
    }
}
