//! A tree as a picture.

use std::fmt::Write as _;

use super::{
    Model, Tree,
    rules::{Turn, human, label},
};

const BOX_WIDTH: usize = 190;
const BOX_HEIGHT: usize = 42;
/// From one level to the next, and from one leaf to the next.
const LEVEL: usize = 270;
const ROW: usize = 56;
const MARGIN: usize = 24;
const HEAD: usize = 84;

/// Band → fill of its leaves: from urgent to bulk.
const FILLS: [&str; 8] = [
    "#d7f0dd", "#e3f3cf", "#f1f3c4", "#faeebd", "#fbe0b4", "#f9cfae", "#f5bcae", "#eeaab1",
];

/// Where a node stands: level, and twice the row, so that a parent can stand between its children.
type Place = (usize, usize);

/// Draws tree `index` of a model from left to right: questions, and leaves coloured by the band that they lead to.
///
/// `None` if there is no such tree. The layout is that of a dendrogram: a leaf a row, a parent halfway between
/// its children, so nothing crosses and any tree that the kernel takes can be drawn.
pub fn svg(model: &Model, index: usize) -> Option<String> {
    let tree = model.trees.get(index)?;
    let mut places = vec![None; tree.nodes.len()];
    let mut rows = 0;
    let mut levels = 0;
    place(tree, (0, 0), &mut rows, &mut places);
    for (level, _) in places.iter().flatten() {
        levels = levels.max(*level);
    }
    let width = 2 * MARGIN + levels * LEVEL + BOX_WIDTH;
    let height = HEAD + rows * ROW + 2 * MARGIN;
    let mut out = String::new();
    head(&mut out, (width, height));
    title(&mut out, model, index);
    for (node, place) in places.iter().enumerate() {
        if let Some(place) = place {
            edges(&mut out, tree, node, (*place, &places));
        }
    }
    for (node, place) in places.iter().enumerate() {
        if let Some(place) = place {
            boxed(&mut out, (model, tree), node, *place);
        }
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// Gives every node below `(node, level)` its place; answers the node's own row.
fn place(
    tree: &Tree,
    (node, level): (usize, usize),
    rows: &mut usize,
    places: &mut [Option<Place>],
) -> usize {
    let row = match tree.nodes[node].split {
        None => {
            *rows += 1;
            2 * (*rows - 1)
        }
        Some(split) => {
            let upper = place(tree, (split.at_most as usize, level + 1), rows, places);
            let lower = place(tree, (split.above as usize, level + 1), rows, places);
            usize::midpoint(upper, lower)
        }
    };
    places[node] = Some((level, row));
    row
}

fn corner((level, row): Place) -> (usize, usize) {
    (MARGIN + level * LEVEL, HEAD + MARGIN + row * ROW / 2)
}

fn head(out: &mut String, (width, height): (usize, usize)) {
    add(
        out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        ),
    );
}

fn title(out: &mut String, model: &Model, index: usize) {
    let summary = model.summary();
    let many = if summary.trees > 1 {
        format!(", tree {} of {}", index + 1, summary.trees)
    } else {
        String::new()
    };
    text(
        out,
        (MARGIN, MARGIN + 10, "#1c2733"),
        &format!(
            "font-size=\"16\" font-weight=\"bold\">model {}{many}",
            summary.generation
        ),
    );
    text(
        out,
        (MARGIN, MARGIN + 30, "#55606b"),
        &format!(
            ">{}, {} rows, {} splits deep; bytes to come, the factor of one standard deviation, training rows",
            escaped(&model.trainer),
            summary.trained_on_samples,
            summary.depth
        ),
    );
    for (band, fill) in FILLS.iter().enumerate() {
        let x = MARGIN + band * 62;
        add(
            out,
            format_args!(
                "<rect x=\"{x}\" y=\"{}\" width=\"58\" height=\"18\" rx=\"4\" fill=\"{fill}\"/>\n",
                MARGIN + 42
            ),
        );
        text(
            out,
            (x + 8, MARGIN + 55, "#1c2733"),
            &format!("font-size=\"11\">band {band}"),
        );
    }
}

fn edges(out: &mut String, tree: &Tree, node: usize, (at, places): (Place, &[Option<Place>])) {
    let Some(split) = tree.nodes[node].split else {
        return;
    };
    let (x, y) = corner(at);
    let (from_x, from_y) = (x + BOX_WIDTH, y + BOX_HEIGHT / 2);
    for (above, child) in [(false, split.at_most), (true, split.above)] {
        let Some(Some(place)) = places.get(child as usize) else {
            continue;
        };
        let (to_x, to_y) = corner(*place);
        let to_y = to_y + BOX_HEIGHT / 2;
        let middle = usize::midpoint(from_x, to_x);
        add(
            out,
            format_args!(
                "<path d=\"M{from_x} {from_y} C{middle} {from_y} {middle} {to_y} {to_x} {to_y}\" \
                 fill=\"none\" stroke=\"#9aa5b1\" stroke-width=\"1.4\"/>\n"
            ),
        );
        let answer = if above { "no" } else { "yes" };
        let lift = if above { 13 } else { 5 };
        let label_y = if above { to_y + lift } else { to_y - lift };
        text(
            out,
            (to_x - 8, label_y, "#55606b"),
            &format!("text-anchor=\"end\" font-size=\"11\">{answer}"),
        );
    }
}

fn boxed(out: &mut String, (model, tree): (&Model, &Tree), node: usize, at: Place) {
    let (x, y) = corner(at);
    let it = tree.nodes[node];
    let (first, second, fill) = match it.split {
        Some(split) => {
            let turn = Turn {
                split,
                above: false,
            };
            let (name, value) = turn.range().map_or(("unknown", String::new()), |range| {
                (
                    label(range.feature),
                    human(range.feature, range.high.max(0) as u32),
                )
            });
            (name.to_owned(), format!("at most {value}?"), "#eef2f6")
        }
        None => {
            let band = model
                .leaf_bytes(&it)
                .map(|bytes| model.thresholds.band_of(bytes));
            let fill = band.map_or("#ffffff", |band| FILLS[usize::from(band) % FILLS.len()]);
            let spread = format!("×÷ {:.1}, {} rows", it.sigma.exp2(), it.rows);
            (model.leaf_text(&it), spread, fill)
        }
    };
    let round = if it.split.is_some() { 4 } else { 14 };
    add(
        out,
        format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"{round}\" fill=\"{fill}\" \
             stroke=\"#9aa5b1\"/>\n"
        ),
    );
    let weight = if it.split.is_none() {
        "font-weight=\"bold\" "
    } else {
        ""
    };
    text(
        out,
        (x + 10, y + 17, "#1c2733"),
        &format!("{weight}>{}", escaped(&first)),
    );
    text(
        out,
        (x + 10, y + 34, "#55606b"),
        &format!("font-size=\"11\">{}", escaped(&second)),
    );
}

/// A text element; `rest` is further attributes, `>` and the content.
fn text(out: &mut String, (x, y, fill): (usize, usize, &str), rest: &str) {
    add(
        out,
        format_args!("<text x=\"{x}\" y=\"{y}\" fill=\"{fill}\" {rest}</text>\n"),
    );
}

fn add(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a string takes any text");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::arbitrary, *};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Fails if a node is missing, or two boxes lie on one another.
        #[test]
        fn every_node_has_a_box_of_its_own(mut model in arbitrary::model()) {
            model.trainer = "a<b & c".to_owned();
            for (index, tree) in model.trees.iter().enumerate() {
                let drawn = svg(&model, index).unwrap();
                let mut corners: Vec<(usize, usize)> = Vec::new();
                for line in drawn.lines().filter(|line| line.contains("stroke=\"#9aa5b1\"/>") && line.starts_with("<rect")) {
                    let number = |name: &str| -> usize {
                        let from = line.find(name).unwrap() + name.len();
                        line[from..].split('"').next().unwrap().parse().unwrap()
                    };
                    corners.push((number(" x=\""), number(" y=\"")));
                }
                prop_assert_eq!(corners.len(), tree.nodes.len());
                for (at, a) in corners.iter().enumerate() {
                    for b in &corners[at + 1..] {
                        let apart = a.0.abs_diff(b.0) >= BOX_WIDTH || a.1.abs_diff(b.1) >= BOX_HEIGHT;
                        prop_assert!(apart, "{:?} and {:?}", a, b);
                    }
                }
                prop_assert!(drawn.contains("a&lt;b &amp; c"));
                // Balanced, so that a reader of XML takes it.
                prop_assert_eq!(drawn.matches("<text").count(), drawn.matches("</text>").count());
            }
            prop_assert!(svg(&model, model.trees.len()).is_none());
        }
    }
}
