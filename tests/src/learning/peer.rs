//! scikit-learn in a Python environment of the bench's own.

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use scheduler_common::features::Feature;
use serde::Deserialize;
use treeline::{dataset::Row, training::Parameters};

const SCRIPT: &str = include_str!("fit.py");

/// A Python that has scikit-learn, and a folder for the rows.
pub(crate) struct Peer {
    python: PathBuf,
    folder: PathBuf,
}

/// How long its training took, and how well it foretells the later rows.
#[derive(Debug, Deserialize)]
pub(crate) struct Fit {
    pub(crate) seconds: f64,
    pub(crate) r2: f64,
}

impl Peer {
    /// Makes the environment below `out` where it is not there yet.
    pub(crate) fn install(out: &Path) -> Result<Self> {
        let (venv, folder) = (out.join("venv"), out.join("rows"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let python = venv.join("bin").join("python");
        let usable =
            python.exists() && run(Command::new(&python).args(["-c", "import sklearn"])).is_ok();
        if !usable {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context(
                "the bench compares with scikit-learn and needs python3 with its venv module",
            )?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "scikit-learn"]))
                .context("cannot install scikit-learn")?;
        }
        Ok(Self { python, folder })
    }

    /// Its version.
    pub(crate) fn version(&self) -> Result<String> {
        let script = "import sklearn; print(sklearn.__version__)";
        Ok(run(Command::new(&self.python).args(["-c", script]))?
            .trim()
            .to_owned())
    }

    /// Hands it the rows.
    pub(crate) fn write(&self, train: &[Row], later: &[Row]) -> Result<()> {
        for (part, rows) in [("train", train), ("later", later)] {
            let create = |kind: &str| -> Result<_> {
                let path = self.folder.join(format!("{part}.{kind}"));
                let file = fs::File::create(&path);
                Ok(BufWriter::new(file.with_context(|| {
                    format!("cannot write {}", path.display())
                })?))
            };
            let (mut features, mut targets) = (create("features")?, create("targets")?);
            for row in rows {
                for value in &row.features[..Feature::ALL.len()] {
                    features.write_all(&value.to_le_bytes())?;
                }
                targets.write_all(&row.target().to_le_bytes())?;
            }
            features.flush()?;
            targets.flush()?;
        }
        Ok(())
    }

    /// Trains on the rows it was handed.
    pub(crate) fn fit(&self, kind: &str, parameters: &Parameters) -> Result<Fit> {
        let mut command = Command::new(&self.python);
        command.args(["-c", SCRIPT]).arg(&self.folder).arg(kind);
        command
            .arg(Feature::ALL.len().to_string())
            .arg(serde_json::to_string(parameters)?);
        // One thread, as ours has.
        command.env("OMP_NUM_THREADS", "1");
        let answer = run(&mut command)?;
        serde_json::from_str(&answer).with_context(|| format!("not an answer: {answer}"))
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
