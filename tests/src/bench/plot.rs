//! Bars of the medians, whiskers from minimum to maximum.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::Report;

const ROW_PIXELS: u32 = 16;
const HEAD_PIXELS: u32 = 60;
const LABEL_PIXELS: u32 = 240;
const WIDTH_PIXELS: u32 = 1000;

/// Draws every section's variants below one another.
///
/// # Errors
///
/// When the file can't be written.
pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let rows: Vec<_> = report
        .sections
        .iter()
        .flat_map(|section| {
            section
                .ns
                .iter()
                .map(|(name, spread)| (format!("{name}, {}", section.flows.name()), *spread))
        })
        .collect();
    let widest = rows
        .iter()
        .map(|(_, spread)| spread.median)
        .fold(1.0, f64::max);
    let height = HEAD_PIXELS + rows.len() as u32 * ROW_PIXELS;
    let root = SVGBackend::new(path, (WIDTH_PIXELS, height)).into_drawing_area();
    let fault = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| fault(&error))?;
    let scale = f64::from(WIDTH_PIXELS - LABEL_PIXELS - 80) / widest;
    let at = |ns: f64| LABEL_PIXELS as i32 + (ns.min(widest) * scale) as i32;
    let text = ("sans-serif", 11).into_font();
    let title = Text::new(
        "nanoseconds per packet: median, whiskers from minimum to maximum",
        (10, 15),
        ("sans-serif", 15).into_font(),
    );
    root.draw(&title).map_err(|error| fault(&error))?;
    for (row, (name, spread)) in (0..).zip(&rows) {
        let top = HEAD_PIXELS as i32 - 15 + row * ROW_PIXELS as i32;
        let colour = match name.split('_').next() {
            Some("textbook" | "lookups") => RGBColor(200, 120, 60),
            Some("cached" | "decision" | "new" | "sampled") => RGBColor(50, 110, 180),
            _ => RGBColor(150, 150, 150),
        };
        let bar = Rectangle::new(
            [(at(0.0), top), (at(spread.median), top + 11)],
            colour.filled(),
        );
        root.draw(&bar).map_err(|error| fault(&error))?;
        let whisker = PathElement::new(
            vec![(at(spread.min), top + 5), (at(spread.max), top + 5)],
            BLACK,
        );
        root.draw(&whisker).map_err(|error| fault(&error))?;
        let label = Text::new(name.clone(), (10, top), text.clone());
        root.draw(&label).map_err(|error| fault(&error))?;
        let figure = Text::new(
            format!("{:.1}", spread.median),
            (at(widest) + 10, top),
            text.clone(),
        );
        root.draw(&figure).map_err(|error| fault(&error))?;
    }
    root.present().map_err(|error| fault(&error))
}
