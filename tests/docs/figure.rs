//! The picture of the README is that of the table in docs/results.md.

use std::{env, fs};

use bed::figure;

use crate::support::left_out;

#[test]
fn the_picture_of_the_readme_shows_the_measured_figures() {
    let Some(root) = super::root() else {
        left_out(format_args!("the documents are not here"));
        return;
    };
    let results = fs::read_to_string(root.join("docs/results.md")).unwrap();
    let wanted = figure::of_results(&results).unwrap();
    let file = root.join(figure::FILE);
    // `cargo xtask docs` draws it anew.
    if env::var_os("TREELINE_DRAW").is_some() {
        fs::write(&file, &wanted).unwrap();
    }
    let drawn = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        drawn == wanted,
        "{} is another: run `cargo xtask docs`",
        figure::FILE
    );
}
