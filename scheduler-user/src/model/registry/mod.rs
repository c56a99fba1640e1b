//! Models on disk: one checked file per generation.

mod error;
#[cfg(test)]
mod format;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Model, ModelError, SCHEMA, Thresholds};
use crate::training::Scores;

pub use error::{LoadError, SaveError};

/// Models kept beside the one that runs.
pub const KEPT: usize = 20;

/// Larger files are no models: a full table is a tenth of it.
pub const MAX_FILE_BYTES: u64 = 8 << 20;

/// Names the generation that acts, or acted last; 0 = aging.
const ACTING: &str = "acting";
/// Holds the cuts that aging was given last.
const AGING_CUTS: &str = "aging-cuts";

/// A file: the content and its hash.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    sha256: String,
    model: Model,
}

/// What `model list` shows of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Entry {
    /// Number of the model.
    pub generation: u32,
    /// The model that ran before it.
    pub parent_generation: Option<u32>,
    /// Seconds since 1970.
    pub created_unix_s: u64,
    /// Name of the trainer.
    pub trainer: String,
    /// Hash of the content.
    pub sha256: String,
    /// Rows it was trained on.
    pub trained_on_samples: u64,
    /// How it did on rows that it had not seen.
    pub scores: Option<Scores>,
    /// Size of the file.
    pub size_bytes: u64,
}

/// A file that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: LoadError,
}

/// A directory of models.
#[derive(Clone, Debug)]
pub struct Registry {
    directory: PathBuf,
}

impl Registry {
    /// The models in `directory`, which is made when the first one is saved.
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The file of a generation.
    pub fn path_of(&self, generation: u32) -> PathBuf {
        self.directory.join(format!("{generation:06}.json"))
    }

    /// Held from the choice of a number until that model acts, so that no two go about it at once.
    ///
    /// # Errors
    /// The directory can't be made or the lock not be had.
    pub fn lock(&self) -> Result<File, SaveError> {
        let path = self.directory.join("lock");
        let locked = (|| {
            fs::create_dir_all(&self.directory)?;
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        })();
        locked.map_err(|source| SaveError::Write { path, source })
    }

    /// Writes down which generation acts now, for the start after the next boot; `None` is aging.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_acting(&self, generation: Option<u32>) -> Result<(), SaveError> {
        let path = self.directory.join(ACTING);
        let text = format!("{}\n", generation.unwrap_or(0));
        self.write(&path, text.as_bytes())
            .map_err(|source| SaveError::Write { path, source })
    }

    /// Whether anything was written of what acts.
    pub fn knows_what_acted(&self) -> bool {
        self.acted().is_some()
    }

    /// What [`Self::set_acting`] wrote last; nothing readable is nothing.
    fn acted(&self) -> Option<u32> {
        let text = fs::read_to_string(self.directory.join(ACTING)).ok()?;
        text.trim().parse().ok()
    }

    /// The generation that acts, or acted last; `None` is aging, or that nothing is known of it.
    pub fn acted_last(&self) -> Option<u32> {
        self.acted().filter(|generation| *generation > 0)
    }

    /// Writes down where the bands of aging are cut now, for the start after the next boot.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_aging_cuts(&self, thresholds: &Thresholds) -> Result<(), SaveError> {
        let path = self.directory.join(AGING_CUTS);
        let text = serde_json::to_vec(thresholds).expect("it has no map with odd keys");
        self.write(&path, &text)
            .map_err(|source| SaveError::Write { path, source })
    }

    /// What [`Self::set_aging_cuts`] wrote last; nothing usable is nothing.
    pub fn aging_cuts(&self) -> Option<Thresholds> {
        let text = fs::read(self.directory.join(AGING_CUTS)).ok()?;
        let thresholds: Thresholds = serde_json::from_slice(&text).ok()?;
        thresholds.ascend().then_some(thresholds)
    }

    /// The newest usable model, whether it ever acted or not.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn newest(&self) -> Result<Option<Model>, LoadError> {
        let newest_first = self.generations()?.into_iter().rev();
        Ok(newest_first.filter_map(|it| self.load(it).ok()).next())
    }

    /// The number for the next model: above every file that is there, corrupt or not.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn next_generation(&self) -> Result<u32, LoadError> {
        Ok(self
            .generations()?
            .last()
            .map_or(1, |newest| newest.saturating_add(1)))
    }

    /// Writes a model so that a reader sees the whole file or none, also after a power cut.
    ///
    /// # Errors
    /// The model does not pass its check, or the disk refuses.
    pub fn save(&self, model: &Model) -> Result<PathBuf, SaveError> {
        let path = self.path_of(model.generation);
        self.store(&path, model)?;
        Ok(path)
    }

    fn store(&self, path: &Path, model: &Model) -> Result<(), SaveError> {
        model.check()?;
        self.write(path, &Self::encode(model))
            .map_err(|source| SaveError::Write {
                path: path.to_owned(),
                source,
            })
    }

    /// What a model's file holds, byte for byte.
    pub fn encode(model: &Model) -> Vec<u8> {
        let stored = Stored {
            sha256: model.sha256(),
            model: model.clone(),
        };
        serde_json::to_vec(&stored).expect("a model has no map with odd keys")
    }

    /// Loads one generation.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, generation: u32) -> Result<Model, LoadError> {
        let path = self.path_of(generation);
        let model = match load_file(&path) {
            Err(LoadError::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(LoadError::NoSuch {
                    generation,
                    path,
                    known: self.generations()?,
                });
            }
            other => other?,
        };
        if model.generation != generation {
            return Err(LoadError::WrongName {
                path,
                found: model.generation,
            });
        }
        Ok(model)
    }

    /// Loads what a person names: a number of the registry, or a file.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load_named(&self, name: &str) -> Result<Model, LoadError> {
        if let Ok(generation) = name.parse() {
            return self.load(generation);
        }
        if !Path::new(name).exists() {
            return Err(LoadError::NoSuchName {
                name: name.to_owned(),
                known: self.generations()?,
            });
        }
        Self::load_file(Path::new(name))
    }

    /// Loads a model from anywhere.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load_file(path: &Path) -> Result<Model, LoadError> {
        load_file(path)
    }

    /// The model of a file that somebody else has read; `path` is for the errors.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn decode(path: &Path, text: &[u8]) -> Result<Model, LoadError> {
        decode(path.to_owned(), text)
    }

    /// Writes a model anywhere, as [`Self::save`] does.
    ///
    /// # Errors
    /// The model does not pass its check, or the disk refuses.
    pub fn save_file(path: &Path, model: &Model) -> Result<(), SaveError> {
        let directory = path.parent().filter(|of| !of.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        Self::new(directory.to_owned()).store(path, model)
    }

    /// All usable models, oldest first, and the files that were passed over.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn list(&self) -> Result<(Vec<Entry>, Vec<Skipped>), LoadError> {
        let mut entries = Vec::new();
        let mut skipped = Vec::new();
        for generation in self.generations()? {
            let path = self.path_of(generation);
            match self.load(generation) {
                Ok(model) => entries.push(Entry {
                    generation,
                    parent_generation: model.parent_generation,
                    created_unix_s: model.created_unix_s,
                    sha256: model.sha256(),
                    trainer: model.trainer,
                    trained_on_samples: model.trained_on_samples,
                    scores: model.scores,
                    size_bytes: fs::metadata(&path).map_or(0, |metadata| metadata.len()),
                }),
                Err(reason) => skipped.push(Skipped { path, reason }),
            }
        }
        Ok((entries, skipped))
    }

    /// The model to begin with, if there is one, and the newer files that were damaged.
    ///
    /// That is the one that acted last, or the newest usable one before it: newer ones were imported or rolled back
    /// from. After a fall back to aging there is none. Where nothing is known of that, it is the newest.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn latest_valid(&self) -> Result<(Option<Model>, Vec<Skipped>), LoadError> {
        let up_to = self.acted().unwrap_or(u32::MAX);
        let mut skipped = Vec::new();
        for generation in self.generations()?.into_iter().rev() {
            match self.load(generation) {
                Ok(_) if generation > up_to => {}
                Ok(model) => return Ok((Some(model), skipped)),
                Err(reason) => skipped.push(Skipped {
                    path: self.path_of(generation),
                    reason,
                }),
            }
        }
        Ok((None, skipped))
    }

    /// Removes all but the newest [`KEPT`] files, the running model and its parent; returns what went.
    ///
    /// # Errors
    /// The directory can't be read, or a file can't be removed.
    pub fn prune(&self, running: Option<u32>) -> Result<Vec<u32>, LoadError> {
        let generations = self.generations()?;
        // What a rollback goes back to.
        let parent = running.and_then(|running| self.load(running).ok()?.parent_generation);
        let surplus = generations.len().saturating_sub(KEPT);
        let mut removed = Vec::new();
        for generation in generations.into_iter().take(surplus) {
            if [running, parent].contains(&Some(generation)) {
                continue;
            }
            let path = self.path_of(generation);
            fs::remove_file(&path).map_err(|source| LoadError::Read { path, source })?;
            removed.push(generation);
        }
        Ok(removed)
    }

    /// Numbers of the files, ascending; none if there is no directory yet.
    fn generations(&self) -> Result<Vec<u32>, LoadError> {
        let failed = |source| LoadError::Read {
            path: self.directory.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut generations = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            generations.extend(name.to_str().and_then(generation_of));
        }
        generations.sort_unstable();
        Ok(generations)
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let draft = path.with_extension("draft");
        let written = (|| {
            let mut file = File::create(&draft)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&draft, path)?;
            File::open(&self.directory)?.sync_all()
        })();
        if written.is_err() {
            // The first error tells the story; a draft that stays is overwritten next time.
            drop(fs::remove_file(&draft));
        }
        written
    }
}

fn generation_of(file_name: &str) -> Option<u32> {
    let digits = file_name.strip_suffix(".json")?;
    let generation = digits.parse().ok()?;
    // Only the canonical spelling, so that a number leads back to its file.
    (format!("{generation:06}") == digits).then_some(generation)
}

fn load_file(path: &Path) -> Result<Model, LoadError> {
    let path = path.to_owned();
    let text = match read_bounded(&path) {
        Ok(Ok(text)) => text,
        Ok(Err(size_bytes)) => return Err(LoadError::TooLarge { path, size_bytes }),
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    decode(path, &text)
}

/// The model that a file of this name holds.
fn decode(path: PathBuf, text: &[u8]) -> Result<Model, LoadError> {
    let value: serde_json::Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(error) => {
            return Err(LoadError::NotJson {
                path,
                reason: error.to_string(),
            });
        }
    };
    // Before the fields are read: those of another format are others.
    if let Some(found) = value
        .pointer("/model/schema")
        .and_then(serde_json::Value::as_u64)
        && found != u64::from(SCHEMA)
    {
        let fault = ModelError::Schema {
            found: found.try_into().unwrap_or(u32::MAX),
        };
        return Err(LoadError::Unusable { path, fault });
    }
    let stored: Stored = match serde_json::from_value(value) {
        Ok(stored) => stored,
        Err(error) => {
            return Err(LoadError::NotAModel {
                path,
                reason: error.to_string(),
            });
        }
    };
    if stored.model.sha256() != stored.sha256 {
        return Err(LoadError::Hash { path });
    }
    match stored.model.check() {
        Ok(()) => Ok(stored.model),
        Err(fault) => Err(LoadError::Unusable { path, fault }),
    }
}

/// The file's bytes, or its size if that is beyond any model.
fn read_bounded(path: &Path) -> io::Result<Result<Vec<u8>, u64>> {
    let size_bytes = fs::metadata(path)?.len();
    if size_bytes > MAX_FILE_BYTES {
        Ok(Err(size_bytes))
    } else {
        fs::read(path).map(Ok)
    }
}
