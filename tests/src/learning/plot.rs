//! Seconds by rows, both axes logarithmic: ours drawn through, theirs with dots alone.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::Report;

/// Draws a line and a row of dots for every trainer.
///
/// # Errors
/// The file can't be written.
pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let fault = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    let lines = &report.training;
    let bounds = |values: Vec<f64>| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        (least / 2.0..most * 2.0).log_scale()
    };
    let rows = bounds(lines.iter().map(|line| line.rows as f64).collect());
    let seconds = lines.iter().flat_map(|line| [line.ours_s, line.theirs_s]);
    let seconds = bounds(seconds.collect());
    let root = SVGBackend::new(path, (800, 500)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| fault(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "training: line treeline, dots scikit-learn",
            ("sans-serif", 16),
        )
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(rows, seconds)
        .map_err(|error| fault(&error))?;
    chart
        .configure_mesh()
        .x_desc("rows")
        .y_desc("seconds")
        .draw()
        .map_err(|error| fault(&error))?;
    for (name, colour) in [
        ("tree", RGBColor(50, 110, 180)),
        ("forest", RGBColor(200, 120, 60)),
    ] {
        let of_trainer = lines.iter().filter(|line| line.trainer == name);
        let ours = of_trainer
            .clone()
            .map(|line| (line.rows as f64, line.ours_s));
        let theirs = of_trainer
            .map(|line| Circle::new((line.rows as f64, line.theirs_s), 4, colour.filled()));
        chart
            .draw_series(LineSeries::new(ours, colour.stroke_width(2)))
            .map_err(|error| fault(&error))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
        chart.draw_series(theirs).map_err(|error| fault(&error))?;
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .draw()
        .map_err(|error| fault(&error))?;
    root.present().map_err(|error| fault(&error))
}
