//! Models that a person shows, compares, pushes, rolls back, exports and imports.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bed::{
    netns::{Bed, Namespace, UPLINK},
    wait,
};
use scheduler_common::features::Feature;
use serde_json::Value;
use treeline::model::{DataWindow, Model, Registry, Split, Thresholds, Tree, TreeNode};

use crate::{
    learning::{learn, play},
    support::{agent::Site, json::documented, privileged},
};

const NOTICE_LIMIT: Duration = Duration::from_secs(60);

/// Predicts `log2` for service `port`, and next to nothing for every other.
pub(crate) fn by_port(port: u16, log2: f64) -> Model {
    let leaf = |output| TreeNode {
        output,
        sigma: 0.5,
        rows: 30,
        split: None,
    };
    let at_most = |value: u16, child| TreeNode {
        split: Some(Split {
            feature: Feature::ServicePort as u8,
            value: f64::from(value) + 0.5,
            at_most: child,
            above: child + 1,
        }),
        rows: 0,
        ..leaf(0.0)
    };
    let nodes = vec![
        at_most(port - 1, 1),
        leaf(12.0),
        at_most(port, 3),
        leaf(log2),
        leaf(12.0),
    ];
    let data = DataWindow {
        rows: 90,
        ..DataWindow::default()
    };
    Model::new("made up", data, vec![Tree { nodes }])
}

/// Writes a model where `push` and `import` find it.
pub(crate) fn file(directory: &Path, name: &str, model: &Model) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, Registry::encode(model)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A namespace with an interface to bring up.
fn namespace() -> Namespace {
    let namespace = Namespace::new("registry").unwrap();
    let link = format!("link add {UPLINK} type veth peer name far");
    namespace.ip(&link).unwrap();
    namespace
}

/// Generation in the kernel; `None` while aging rules.
fn acting(site: &Site<'_>) -> Option<u32> {
    let active = site.datapath().active().unwrap();
    active.map(|active| active.generation)
}

fn json(site: &Site<'_>, arguments: &[&str]) -> Value {
    let done = site.call(&[arguments, &["--format", "json"]].concat());
    let printed = done.expect(0).json();
    let [model, verb, ..] = arguments else {
        panic!("{arguments:?} is no verb with a noun")
    };
    // A rollback prints what a push does, and a model that goes to standard output is a model.
    let verb = match *verb {
        "rollback" => "push",
        "export" if arguments.contains(&"-") => "show",
        verb => verb,
    };
    if *model == "model" && !printed.is_null() {
        documented(&format!("model {verb}"), &printed);
    }
    printed
}

#[test]
fn a_push_acts_at_once_and_a_rollback_brings_the_older_back() {
    if !privileged() {
        return;
    }
    let namespace = namespace();
    let site = Site::new(&namespace);
    let directory = tempfile::tempdir().unwrap();
    let first = file(directory.path(), "first.json", &by_port(443, 24.0));
    let second = file(directory.path(), "second.json", &by_port(80, 20.0));
    site.call(&["model", "push", text(&first)])
        .expect(1)
        .says("treeline up");
    site.call(&["model", "list"])
        .expect(0)
        .says("no models yet");
    site.up(&[]).expect(0);
    site.call(&["model", "rollback"])
        .expect(1)
        .says("no model acts");

    let push = json(&site, &["model", "push", text(&first)]);
    assert_eq!(
        (&push["before"], &push["acting"]),
        (&Value::Null, &1.into())
    );
    assert!(
        push["undo"]
            .as_str()
            .unwrap()
            .ends_with("rollback --to-aging")
    );
    assert_eq!(acting(&site), Some(1));
    site.call(&["model", "push", text(&second)])
        .expect(0)
        .says("model 2 acts")
        .says("before: model 1")
        .says("model rollback 1");
    assert_eq!(acting(&site), Some(2));
    let listed = json(&site, &["model", "list"]);
    assert_eq!(listed["acting"], 2);
    let parents: Vec<&Value> = listed["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["parent_generation"])
        .collect();
    assert_eq!(parents, [&Value::Null, &1.into()]);
    site.call(&["model", "list"]).expect(0).says("* acts now");

    site.call(&["model", "rollback"])
        .expect(0)
        .says("model 1 acts again")
        .says("model rollback 2");
    assert_eq!(acting(&site), Some(1));
    site.call(&["model", "rollback"])
        .expect(1)
        .says("--to-aging");
    site.call(&["model", "rollback", "1"])
        .expect(1)
        .says("acts already");
    site.call(&["model", "rollback", "9"])
        .expect(6)
        .says("000009.json");
    assert_eq!(acting(&site), Some(1));

    // What was rolled back from is not what the next start begins with.
    site.down().expect(0);
    site.up(&[]).expect(0);
    assert_eq!(acting(&site), Some(1));
    site.call(&["model", "rollback", "--to-aging"])
        .expect(0)
        .says("aging");
    assert_eq!(acting(&site), None);
    site.down().expect(0);
    site.up(&[]).expect(0);
    assert_eq!(acting(&site), None, "aging was asked for");
    site.call(&["model", "rollback", "2"]).expect(0);
    assert_eq!(acting(&site), Some(2));

    let log = json(&site, &["model", "log"]);
    let steps: Vec<(&str, &Value)> = log["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|decision| (decision["step"].as_str().unwrap(), &decision["acting"]))
        .collect();
    let (one, two) = (1.into(), 2.into());
    assert_eq!(
        steps,
        [
            ("pushed", &one),
            ("pushed", &two),
            ("rolled-back", &one),
            ("rolled-back", &Value::Null),
            ("rolled-back", &two),
        ]
    );
    site.call(&["model", "log", "-n", "1"])
        .expect(0)
        .says("to model 2")
        .says("undo: treeline --instance");
    site.down().expect(0);
    site.assert_no_trace();
}

#[test]
fn a_faulty_file_changes_nothing() {
    if !privileged() {
        return;
    }
    let namespace = namespace();
    let site = Site::new(&namespace);
    let directory = tempfile::tempdir().unwrap();
    let good = by_port(443, 24.0);
    let good_file = file(directory.path(), "good.json", &good);
    site.up(&[]).expect(0);
    site.call(&["model", "push", text(&good_file)]).expect(0);
    let before = (
        json(&site, &["model", "list"]),
        json(&site, &["model", "log"]),
        site.datapath().active().unwrap(),
    );

    let bytes = fs::read(&good_file).unwrap();
    let cut = directory.path().join("cut.json");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let altered = directory.path().join("altered.json");
    let changed = String::from_utf8(bytes).unwrap().replace("24.0", "25.0");
    fs::write(&altered, changed).unwrap();
    let foreign = file(
        directory.path(),
        "foreign.json",
        &Model {
            abi_version: good.abi_version + 1,
            ..good.clone()
        },
    );
    let many = file(
        directory.path(),
        "many.json",
        &Model {
            trees: vec![good.trees[0].clone(); 17],
            ..good.clone()
        },
    );
    let faults = [
        (directory.path().join("absent.json"), "cannot read"),
        (cut, "not JSON"),
        (altered, "hash mismatch"),
        (foreign, "ABI version"),
        (many, "17 trees"),
    ];
    for (path, fault) in &faults {
        for verb in ["push", "import"] {
            site.call(&["model", verb, text(path)])
                .expect(6)
                .says(fault)
                .says(text(path));
        }
    }
    let after = (
        json(&site, &["model", "list"]),
        json(&site, &["model", "log"]),
        site.datapath().active().unwrap(),
    );
    assert_eq!(before, after);
    site.down().expect(0);
}

#[test]
fn a_model_is_exported_imported_shown_drawn_and_compared() {
    if !privileged() {
        return;
    }
    let namespace = namespace();
    let site = Site::new(&namespace);
    let directory = tempfile::tempdir().unwrap();
    let first = file(directory.path(), "first.json", &by_port(443, 24.0));
    let forest = by_port(80, 20.0);
    let forest = Model {
        trees: vec![forest.trees[0].clone(); 2],
        ..forest
    };
    let second = file(directory.path(), "second.json", &forest);
    site.up(&[]).expect(0);
    site.call(&["model", "import", text(&first)])
        .expect(0)
        .says("does not act yet")
        .says("model rollback 1");
    assert_eq!(acting(&site), None);
    site.call(&["model", "import", text(&second)]).expect(0);
    site.down().expect(0);
    site.up(&[]).expect(0);
    assert_eq!(
        acting(&site),
        None,
        "what is only imported does not act after a start"
    );
    let undo = ["model", "rollback", "1"];
    site.call(&undo).expect(0);
    assert_eq!(acting(&site), Some(1));

    let out = directory.path().join("out.json");
    let export = ["model", "export", "--out", text(&out)];
    site.call(&export).expect(0).says("sha256");
    site.call(&export).expect(1).says("--force");
    site.call(&[&export[..], &["--force"]].concat()).expect(0);
    let exported = Registry::load_file(&out).unwrap();
    let kept = Registry::new(site.instance.models()).load(1).unwrap();
    assert_eq!(exported, kept);
    let piped = site.call(&["model", "export", "1", "--out", "-"]).expect(0);
    assert_eq!(piped.stdout.into_bytes(), fs::read(&out).unwrap());

    site.call(&["model", "show", "1", "--rules"])
        .expect(0)
        .says("service 443 (https)")
        .says("17 MB")
        .says("service_port");
    let shown = json(&site, &["model", "show", "1", "--rules"]);
    assert_eq!(shown["rules"].as_array().unwrap().len(), 3);
    assert_eq!(shown["importances"][0]["share"], 1.0);

    let picture = directory.path().join("tree.svg");
    site.call(&["model", "show", "1", "--svg", text(&picture)])
        .expect(0)
        .says("tree.svg");
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("17 MB") && svg.contains("443 (https)"));
    fs::remove_file(&picture).unwrap();
    site.call(&["model", "show", "2", "--svg", text(&picture)])
        .expect(0);
    let files = |name: &str| directory.path().join(name).exists();
    assert!(files("tree-1.svg") && files("tree-2.svg") && !files("tree.svg"));
    site.call(&["model", "show", "2", "--svg", text(&picture), "--tree", "3"])
        .expect(1)
        .says("has 2 trees");

    site.call(&["model", "diff", "1", "2"])
        .expect(0)
        .says("the trees differ")
        .says("service 443 (https)")
        .says("17 MB (band 7)");
    let diff = json(&site, &["model", "diff", "1", text(&second)]);
    assert_eq!(
        (&diff["schema"], &diff["same_trees"]),
        (&1.into(), &false.into())
    );
    assert!(diff["verdicts"]["shorter"].as_u64() > Some(0), "{diff}");
    site.call(&["model", "diff", "1", "7"])
        .expect(6)
        .says("000007.json");
    site.down().expect(0);
}

#[test]
fn an_agent_takes_what_was_pushed_for_the_model_to_beat() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let pushed = file(directory.path(), "pushed.json", &by_port(9, 24.0));
    let agent = site.run(&["--train-every", "2s", "--min-samples", "200"]);
    let learned = learn(&bed, &site);
    let push = json(&site, &["model", "push", text(&pushed)]);
    let generation = push["acting"].as_u64().unwrap();
    assert!(generation > u64::from(learned), "{push}");
    wait::until("the agent's notice", NOTICE_LIMIT, || {
        Ok(agent.log().contains("another model acts").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));

    // The traffic goes on, and the pushed model says nothing of it: a candidate beats it, or it is worth nothing.
    let mut seed = 1000;
    wait::until("an end of its time", NOTICE_LIMIT, || {
        seed += 1;
        play(&bed, seed);
        Ok((acting(&site).map(u64::from) != Some(generation)).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    drop(agent);
    let log = json(&site, &["model", "log", "-n", "1000"]);
    let decisions = log["decisions"].as_array().unwrap();
    let at = decisions
        .iter()
        .position(|it| it["step"] == "pushed")
        .unwrap();
    let (earlier, later) = decisions.split_at(at + 1);
    let before = earlier.iter().rfind(|it| it["step"] == "promoted").unwrap();
    assert_eq!(
        (&before["by"], before["acting"].as_u64()),
        (&"agent".into(), push["before"].as_u64())
    );
    assert!(earlier.iter().any(|it| it["step"] == "trained"));
    // What ended its time was a verdict on it: something beat it, or it was worth nothing.
    let ended = |it: &&Value| it["step"] == "promoted" || it["step"] == "fell-back";
    let first = later.iter().find(ended).unwrap();
    assert_eq!(first["before"], generation, "{log}");
    if first["step"] == "promoted" {
        let by = Registry::new(site.instance.models());
        let by = by
            .load(first["generation"].as_u64().unwrap() as u32)
            .unwrap();
        assert_eq!(by.parent_generation.map(u64::from), Some(generation));
    } else {
        assert_eq!(first["generation"], generation);
    }
    site.down().expect(0);
}

#[test]
fn cuts_come_with_a_model_and_go_with_it() {
    if !privileged() {
        return;
    }
    let namespace = namespace();
    let site = Site::new(&namespace);
    let directory = tempfile::tempdir().unwrap();
    let cut = |first_cut: u32, first_bytes| Thresholds {
        cuts_bytes: std::array::from_fn(|cut| first_cut << cut),
        first_bytes,
    };
    let (own, of_aging) = (cut(2_000, 0), cut(7_000, 15_000));
    let fitted = Model {
        thresholds: own,
        aging_thresholds: Some(of_aging),
        ..by_port(443, 24.0)
    };
    let fitted = file(directory.path(), "fitted.json", &fitted);
    let older = file(directory.path(), "older.json", &by_port(80, 20.0));
    let in_force = |site: &Site<'_>| Thresholds::from(&site.datapath().settings().unwrap());
    site.up(&[]).expect(0);
    assert_eq!(in_force(&site), Thresholds::default());

    site.call(&["model", "push", text(&fitted)]).expect(0);
    assert_eq!(in_force(&site), own);
    let told = &site.status()["thresholds"];
    assert_eq!(told["cuts_bytes"][0], 2_000, "{told}");
    site.call(&["model", "push", text(&older)]).expect(0);
    assert_eq!(in_force(&site), Thresholds::default());
    site.call(&["model", "rollback"]).expect(0);
    assert_eq!(in_force(&site), own);
    site.call(&["model", "rollback", "--to-aging"]).expect(0);
    assert_eq!(in_force(&site), of_aging);

    // A start with a file goes by the registry and the journal, and only once.
    site.up(&["--model", text(&fitted)]).expect(0);
    site.up(&["--model", text(&fitted)]).expect(0);
    assert_eq!((acting(&site), in_force(&site)), (Some(3), own));
    site.up(&["--model", "none"]).expect(0);
    assert_eq!((acting(&site), in_force(&site)), (None, of_aging));
    let log = json(&site, &["model", "log"]);
    let steps: Vec<&str> = (log["decisions"].as_array().unwrap().iter())
        .map(|decision| decision["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps.len(), 6, "{steps:?}");
    assert_eq!(steps[4..], ["pushed", "taken-out"]);
    site.down().expect(0);
    site.assert_no_trace();

    // Aging has them again after the next boot, unless it is asked for no model.
    site.up(&[]).expect(0);
    assert_eq!((acting(&site), in_force(&site)), (None, of_aging));
    site.down().expect(0);
    site.up(&["--model", "none"]).expect(0);
    assert_eq!(in_force(&site), Thresholds::default());
    site.down().expect(0);
}
