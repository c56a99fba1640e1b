//! From real traffic to a model that classifies, and back from disk.

use std::{
    fs,
    time::{Duration, Instant},
};

use bed::{
    mix::{Plan, schedule},
    netns::{Bed, SERVER_V4},
    traffic::{self, Play},
};
use nix::sys::signal::Signal;
use treeline::model::{Model, Registry};

use crate::support::{agent::Site, privileged};

const LIMIT: Duration = Duration::from_secs(90);

/// Some seconds of the demo's messages.
pub(crate) fn play(bed: &Bed, seed: u64) {
    let plan = Plan {
        rate_bps: 100_000_000,
        load: 0.7,
        length: Duration::from_millis(2500),
        shrink: 8.0,
    };
    let play = Play {
        server: SERVER_V4,
        drain: Duration::from_secs(5),
        band: None,
    };
    traffic::run(bed, schedule(&plan, seed), play, None, &mut || Ok(())).unwrap();
}

/// Offers traffic until `status` shows a model that has classified packets.
pub(crate) fn learn(bed: &Bed, site: &Site<'_>) -> u32 {
    let deadline = Instant::now() + LIMIT;
    for seed in 0.. {
        play(bed, seed);
        let status = site.status();
        let model = &status["model"];
        if model["generation"].as_u64() >= Some(1) && model["packets"].as_u64() > Some(0) {
            assert!(
                model["trained_on_samples"].as_u64() >= Some(100),
                "{status}"
            );
            assert!(model["nodes"].as_u64() > Some(1), "{status}");
            assert_eq!(status["counters"]["samples_lost"], 0, "{status}");
            let generation = model["generation"].as_u64().unwrap();
            return u32::try_from(generation).unwrap();
        }
        let logs = || site.call(&["logs"]).stdout;
        assert!(Instant::now() < deadline, "no model: {status}\n{}", logs());
    }
    panic!("seeds ran out");
}

/// Writes a model's file as the registry does, with the right hash, whatever it holds.
fn write(path: &std::path::Path, model: &Model) {
    let stored = serde_json::json!({ "sha256": model.sha256(), "model": model });
    fs::write(path, stored.to_string()).unwrap();
}

#[test]
fn a_model_is_learned_live_shown_kept_and_loaded_again() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let agent = site.run(&["--train-every", "2s", "--min-samples", "200"]);
    learn(&bed, &site);
    let (ended, log) = agent.end(Signal::SIGTERM);
    assert!(ended.success(), "{ended}\n{log}");
    let acting = site.status()["model"]["generation"].as_u64().unwrap();
    let generation = u32::try_from(acting).unwrap();

    let listed = site
        .call(&["model", "list", "--format", "json"])
        .expect(0)
        .json();
    let newest = listed["models"].as_array().unwrap().last().unwrap();
    assert_eq!(newest["generation"], generation);
    assert!(
        newest["scores"].is_object(),
        "an accepted model was judged: {newest}"
    );
    let number = generation.to_string();
    let shown = site
        .call(&["model", "show", &number, "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(shown["generation"], generation);
    site.call(&["model", "show"]).expect(0).says("service_port");
    site.call(&["logs", "-n", "1000"])
        .expect(0)
        .says("model deployed");

    let registry = Registry::new(site.instance.models());
    let model = registry.load(generation).unwrap();
    assert!(model.trained_on_samples >= 100 && !model.trees.is_empty());

    site.down().expect(0);
    site.assert_no_trace();
    let agent = site.run(&["--model", "latest"]);
    assert_eq!(site.status()["model"]["generation"], generation);
    assert!(agent.end(Signal::SIGTERM).0.success());
    site.down().expect(0);

    damaged_models_are_passed_over(&site, &registry, &model);
}

/// Newer files that are no models do not hinder a start, unless one of them is asked for.
fn damaged_models_are_passed_over(site: &Site<'_>, registry: &Registry, model: &Model) {
    let cut = registry.path_of(model.generation + 1);
    let text = fs::read(registry.path_of(model.generation)).unwrap();
    fs::write(&cut, &text[..text.len() / 2]).unwrap();
    let mut other = model.clone();
    other.generation += 2;
    other.features.swap(0, 1);
    let other_features = registry.path_of(other.generation);
    write(&other_features, &other);
    let mut altered = model.clone();
    altered.generation += 3;
    let altered_path = registry.path_of(altered.generation);
    write(&altered_path, &altered);
    let text = fs::read_to_string(&altered_path).unwrap();
    let rows = format!("\"trained_on_samples\":{}", model.trained_on_samples);
    let changed = text.replace(&rows, "\"trained_on_samples\":1");
    assert_ne!(changed, text);
    fs::write(&altered_path, changed).unwrap();

    let came = site.up(&["--model", "latest"]).expect(0);
    for path in [&cut, &other_features, &altered_path] {
        came.clone().says(&path.display().to_string());
    }
    assert_eq!(site.status()["model"]["generation"], model.generation);
    site.down().expect(0);
    for (path, number) in [(&cut, 1), (&other_features, 2), (&altered_path, 3)] {
        let path = path.to_str().unwrap();
        let number = (model.generation + number).to_string();
        site.call(&["model", "show", &number]).expect(6).says(path);
        site.up(&["--model", path]).expect(6).says(path);
        site.assert_no_trace();
    }
    let listed = site
        .call(&["model", "list", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(listed["damaged"].as_array().unwrap().len(), 3, "{listed}");
}
