//! The README's picture, from the table of the demo's full run in docs/results.md.

use anyhow::{Context as _, Result, ensure};

use crate::{
    chart::{self, Area},
    page::{Panel, panels},
    scheme::Scheme,
};

/// Where it is kept.
pub const FILE: &str = "docs/demo.svg";

const SIZE: (u32, u32) = (960, 260);
/// The table stands below this.
const HEADING: &str = "## The demo, full run";

/// Draws the mean completion times of the table, a panel a class of size.
///
/// # Errors
///
/// When the table is not there or can't be read, or the picture not be drawn.
pub fn of_results(markdown: &str) -> Result<String> {
    let (_, section) = markdown
        .split_once(HEADING)
        .context("docs/results.md tells of no full run of the demo")?;
    let rows: Vec<Vec<&str>> = (section.lines())
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let head = rows.first().context("the table is empty")?;
    // The last column is the slowdown.
    ensure!(head.len() > 3, "the table has too few columns");
    let classes = 1..head.len() - 1;
    let panels_of: Result<Vec<Panel>> = classes
        .map(|column| {
            let bars: Result<Vec<(Scheme, f64)>> = (Scheme::ALL.into_iter())
                .map(|scheme| Ok((scheme, mean(&rows, scheme, column)?)))
                .collect();
            Ok(Panel {
                name: format!("{}, ms", head[column]),
                bars: bars?,
            })
        })
        .collect();
    let panels_of = panels_of?;
    let svg = chart::svg(SIZE, |area: &Area<'_>| panels(area, &panels_of))?;
    Ok(treeline::page::alone(
        &svg,
        SIZE,
        "Mean completion time of messages by size under FIFO, aging, treeline and the oracle",
    ))
}

/// The first figure of `mean / p99` in the row of a scheme.
fn mean(rows: &[Vec<&str>], scheme: Scheme, column: usize) -> Result<f64> {
    let name = scheme.name().to_lowercase();
    let row = rows.iter().find(|row| {
        row.first()
            .is_some_and(|it| it.to_lowercase().starts_with(&name))
    });
    let cell = row
        .and_then(|row| row.get(column))
        .with_context(|| format!("the table has no row of {name}"))?;
    let first = cell.split('/').next().unwrap_or_default().trim();
    first
        .parse()
        .with_context(|| format!("{first:?} is no figure"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_drawn_from_the_table_alone() {
        let table = format!(
            "{HEADING}\n\ntext\n\n| | small | all | slowdown |\n|---|---|---|---|\n| messages | 2 | 3 | |\n| FIFO | 6.5 / 8 | 9.25 / 11 | 1 |\n\
             | aging (no model) | 2 / 3 | 4 / 5 | 1 |\n| treeline | 1.5 / 3 | 3 / 4 | 1 |\n| oracle (knows) | 1 / 1 | 2 / 2 | 1 |\n\nmore\n"
        );
        let svg = of_results(&table).unwrap();
        for text in [
            "small, ms",
            "all, ms",
            "9.2",
            "6.5",
            "treeline",
            "prefers-color-scheme",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        of_results("nothing").unwrap_err();
        of_results(&table.replace("1.5", "fast")).unwrap_err();
    }
}
