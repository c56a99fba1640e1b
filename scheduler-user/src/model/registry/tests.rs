//! Files that come back, and files that are told apart.

use proptest::prelude::*;

use super::{
    super::{DataWindow, Tree, TreeNode, arbitrary},
    *,
};

fn model(generation: u32) -> Model {
    let leaf = TreeNode {
        output: 10.1,
        sigma: 0.3,
        ..TreeNode::default()
    };
    let model = Model::new(
        "made up",
        DataWindow::default(),
        vec![Tree { nodes: vec![leaf] }],
    );
    Model {
        generation,
        ..model
    }
}

fn registry() -> (tempfile::TempDir, Registry) {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(directory.path().join("models"));
    (directory, registry)
}

fn spoil(path: &Path, change: impl Fn(String) -> String) -> String {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
    let error = Registry::load_file(path).unwrap_err().to_string();
    assert!(
        error.contains(path.file_name().unwrap().to_str().unwrap()),
        "{error}"
    );
    error
}

#[test]
fn an_empty_registry_has_nothing_and_starts_at_one() {
    let (_directory, registry) = registry();
    assert_eq!(registry.next_generation().unwrap(), 1);
    assert!(registry.latest_valid().unwrap().0.is_none());
    assert!(matches!(registry.load(4), Err(LoadError::NoSuch { .. })));
}

#[test]
fn a_model_that_is_not_there_names_those_that_are() {
    let (_directory, registry) = registry();
    let told = |name| registry.load_named(name).unwrap_err().to_string();
    assert!(told("4").contains("there is no model 4") && told("4").contains("none yet"));
    for generation in 1..=7 {
        registry.save(&model(generation)).unwrap();
        if generation == 2 {
            assert!(told("4").ends_with("there are: 2, 1"), "{}", told("4"));
        }
    }
    assert!(
        told("9").contains("the newest are 7, 6, 5, 4, 3:"),
        "{}",
        told("9")
    );
    let word = told("lastest");
    assert!(
        word.contains("\"lastest\" is neither a model's number nor a model file"),
        "{word}"
    );
    assert_eq!(registry.load_named("7").unwrap(), model(7));
}

#[test]
fn what_is_saved_is_listed_and_comes_back() {
    let (_directory, registry) = registry();
    for generation in [2, 1, 10] {
        registry.save(&model(generation)).unwrap();
    }
    let (entries, skipped) = registry.list().unwrap();
    assert_eq!(
        entries.iter().map(|e| e.generation).collect::<Vec<_>>(),
        [1, 2, 10]
    );
    assert!(skipped.is_empty() && entries.iter().all(|e| e.size_bytes > 100));
    assert_eq!(registry.load(2).unwrap(), model(2));
    assert_eq!(registry.latest_valid().unwrap().0, Some(model(10)));
    assert_eq!(registry.next_generation().unwrap(), 11);
    let names = fs::read_dir(&registry.directory).unwrap().count();
    assert_eq!(names, 3, "no draft is left behind");
}

#[test]
fn a_corrupt_file_says_what_is_wrong_and_the_one_before_is_used() {
    let (_directory, registry) = registry();
    for generation in 1..=3 {
        registry.save(&model(generation)).unwrap();
    }
    let path = registry.path_of(3);
    let error = spoil(&path, |text| text.replace("10.1", "20.1"));
    assert!(error.contains("hash mismatch"), "{error}");
    let error = spoil(&registry.path_of(2), |text| {
        text[..text.len() / 2].to_owned()
    });
    assert!(error.contains("not JSON"), "{error}");

    let (latest, skipped) = registry.latest_valid().unwrap();
    assert_eq!(latest.unwrap().generation, 1);
    assert_eq!(
        skipped.iter().map(|s| &s.path).collect::<Vec<_>>(),
        [&path, &registry.path_of(2)]
    );
    assert_eq!(
        registry.next_generation().unwrap(),
        4,
        "a corrupt number is not used again"
    );
}

#[test]
fn a_foreign_file_is_told_from_a_damaged_one() {
    let (_directory, registry) = registry();
    let path = registry.save(&model(1)).unwrap();
    let error = spoil(&path, |_| "{\"a\": 1}".to_owned());
    assert!(error.contains("lacks"), "{error}");
    let rewritten = |change: fn(&mut Model)| {
        let mut changed = model(1);
        change(&mut changed);
        let stored = Stored {
            sha256: changed.sha256(),
            model: changed,
        };
        spoil(&path, |_| serde_json::to_string(&stored).unwrap())
    };
    let error = rewritten(|m| m.features[4].name = "ttl".into());
    assert!(error.contains("feature 4 is `ttl in packets`"), "{error}");
    let error = rewritten(|m| m.abi_version = 9);
    assert!(error.contains("ABI version 9"), "{error}");
    let error = rewritten(|m| m.schema = 3);
    assert!(error.contains("format is version 3"), "{error}");
}

#[test]
fn a_file_under_the_wrong_number_is_refused() {
    let (_directory, registry) = registry();
    fs::rename(registry.save(&model(1)).unwrap(), registry.path_of(7)).unwrap();
    assert!(matches!(
        registry.load(7),
        Err(LoadError::WrongName { found: 1, .. })
    ));
}

#[test]
fn pruning_keeps_the_newest_and_the_running_model() {
    let (_directory, registry) = registry();
    for generation in 1..=25 {
        registry.save(&model(generation)).unwrap();
    }
    assert_eq!(registry.prune(Some(2)).unwrap(), [1, 3, 4, 5]);
    assert_eq!(registry.list().unwrap().0.len(), KEPT + 1);
}

#[test]
fn pruning_keeps_what_a_rollback_goes_back_to() {
    let (_directory, registry) = registry();
    for generation in 1..=25 {
        let parent_generation = (generation == 3).then_some(1);
        registry
            .save(&Model {
                parent_generation,
                ..model(generation)
            })
            .unwrap();
    }
    assert_eq!(registry.prune(Some(3)).unwrap(), [2, 4, 5]);
}

#[test]
fn a_start_takes_what_acted_last_and_not_what_is_newest() {
    let (_directory, registry) = registry();
    for generation in 1..=4 {
        registry.save(&model(generation)).unwrap();
    }
    let first = || {
        let (model, skipped) = registry.latest_valid().unwrap();
        (model.map(|model| model.generation), skipped.len())
    };
    assert_eq!(first(), (Some(4), 0), "nothing is known of what acted");
    registry.set_acting(Some(2)).unwrap();
    assert_eq!(first(), (Some(2), 0));
    spoil(&registry.path_of(3), |text| text.replace("10.1", "20.1"));
    assert_eq!(
        first(),
        (Some(2), 1),
        "damaged ones are told of all the same"
    );
    spoil(&registry.path_of(2), |text| text.replace("10.1", "20.1"));
    assert_eq!(first(), (Some(1), 2));
    registry.set_acting(None).unwrap();
    assert_eq!(first(), (None, 2), "it fell back to aging");
    fs::write(registry.directory.join(ACTING), "x").unwrap();
    assert_eq!(first(), (Some(4), 0));
}

#[test]
fn the_cuts_of_aging_are_there_after_a_boot_if_they_can_be_used() {
    let (_directory, registry) = registry();
    assert_eq!(registry.aging_cuts(), None);
    let mut cuts = Thresholds::default();
    cuts.cuts_bytes[0] = 4000;
    registry.set_aging_cuts(&cuts).unwrap();
    assert_eq!(registry.aging_cuts(), Some(cuts));
    assert!(registry.list().unwrap().0.is_empty(), "it is no model");
    cuts.cuts_bytes[0] = u32::MAX;
    registry.set_aging_cuts(&cuts).unwrap();
    assert_eq!(registry.aging_cuts(), None, "they do not ascend");
    fs::write(registry.directory.join(AGING_CUTS), "x").unwrap();
    assert_eq!(registry.aging_cuts(), None);
}

#[test]
fn who_takes_a_number_keeps_others_from_it() {
    let (_directory, registry) = registry();
    let held = registry.lock().unwrap();
    let numbers = std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let _lock = registry.lock().unwrap();
            registry.next_generation().unwrap()
        });
        let first = registry.next_generation().unwrap();
        registry.save(&model(first)).unwrap();
        drop(held);
        (first, second.join().unwrap())
    });
    assert_eq!(numbers, (1, 2));
}

#[test]
fn a_model_that_can_t_be_used_is_not_written() {
    let (_directory, registry) = registry();
    let broken = Model {
        trees: Vec::new(),
        ..model(1)
    };
    assert!(matches!(
        registry.save(&broken),
        Err(SaveError::Model(ModelError::Empty))
    ));
    assert!(!registry.path_of(1).exists());
}

proptest! {
    /// Fails if numbers do not survive the way to the disk and back bit by bit.
    #[test]
    fn any_model_comes_back_as_it_went(model in arbitrary::model()) {
        let (_directory, registry) = registry();
        registry.save(&model).unwrap();
        prop_assert_eq!(registry.load(0).unwrap(), model);
    }
}
