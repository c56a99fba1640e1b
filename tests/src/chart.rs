//! Curves as SVG inside a page.

use anyhow::Result;
use plotters::{coord::ranged1d::ValueFormatter, prelude::*};
use treeline::page::PlotError;
pub use treeline::page::{Area, STYLE, escape, svg};

const WIDE: (u32, u32) = (960, 420);
/// Points of a distribution curve; more would only swell the page.
const CURVE_POINTS: usize = 400;

/// A named line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Name in the legend.
    pub name: &'static str,
    /// Red, green, blue.
    pub colour: (u8, u8, u8),
    /// Its points, in order.
    pub points: Vec<(f64, f64)>,
}

/// The distribution function of some values, thinned.
#[must_use]
pub fn cumulative(values: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let step = values.len().div_ceil(CURVE_POINTS).max(1);
    let count = values.len() as f64;
    values
        .iter()
        .enumerate()
        .step_by(step)
        .map(|(i, value)| (*value, (i + 1) as f64 / count))
        .collect()
}

/// Distributions of completion times in milliseconds.
///
/// # Errors
///
/// When the plot can't be drawn.
pub fn distribution(curves: &[Curve]) -> Result<String> {
    let all = || {
        curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|point| point.0)
    };
    let low = all().fold(f64::INFINITY, f64::min).clamp(0.01, 1e6);
    let high = all().fold(low * 10.0, f64::max);
    svg(WIDE, |area| {
        let mut chart = builder(area)
            .build_cartesian_2d((low..high).log_scale(), 0.0..1.0)
            .map_err(drawing)?;
        describe_axes(
            &mut chart,
            "completion time, ms (log scale)",
            "share of messages",
        )?;
        draw_all(&mut chart, curves)
    })
}

/// Mean slowdown by size in kilobytes.
///
/// # Errors
///
/// When the plot can't be drawn.
pub fn by_size(curves: &[Curve]) -> Result<String> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let high = points().fold(2.0, |high: f64, point| high.max(point.1));
    let low = points().fold(1.0, |low: f64, point| low.min(point.1));
    let largest = points().fold(1.0, |largest: f64, point| largest.max(point.0));
    svg(WIDE, |area| {
        let mut chart = builder(area)
            .build_cartesian_2d(
                (0.2..largest * 1.5).log_scale(),
                (low..high * 1.2).log_scale(),
            )
            .map_err(drawing)?;
        describe_axes(
            &mut chart,
            "size of the reply, kB (log scale)",
            "mean slowdown (log scale)",
        )?;
        draw_all(&mut chart, curves)
    })
}

/// Mean slowdown over time in seconds.
///
/// # Errors
///
/// When the plot can't be drawn.
pub fn lines(curves: &[Curve]) -> Result<String> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let high = points().fold(1.0, |high: f64, point| high.max(point.1));
    let latest = points().fold(1.0, |latest: f64, point| latest.max(point.0));
    svg(WIDE, |area| {
        let mut chart = builder(area)
            .build_cartesian_2d(0.0..latest, 0.0..high * 1.1)
            .map_err(drawing)?;
        describe_axes(&mut chart, "time, s", "mean slowdown")?;
        draw_all(&mut chart, curves)
    })
}

pub(crate) fn drawing(error: impl std::fmt::Display) -> PlotError {
    PlotError::of(error)
}

fn builder<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(10)
        .x_label_area_size(44)
        .y_label_area_size(60);
    builder
}

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

fn describe_axes<X, Y>(chart: &mut Chart<'_, '_, X, Y>, x: &str, y: &str) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(RGBColor(240, 242, 245))
        .x_desc(x)
        .y_desc(y)
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 12))
        .draw()
        .map_err(drawing)?;
    Ok(())
}

fn draw_all<'a, X, Y>(chart: &mut Chart<'a, 'a, X, Y>, curves: &[Curve]) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for Curve {
        name,
        colour: (red, green, blue),
        points,
    } in curves
    {
        let style = RGBColor(*red, *green, *blue).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))
            .map_err(drawing)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(221, 226, 232))
        .label_font(("sans-serif", 13))
        .draw()
        .map_err(drawing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_rise_to_one() {
        let curve = cumulative([3.0, 1.0, 2.0, 4.0].into_iter());
        assert_eq!(curve, [(1.0, 0.25), (2.0, 0.5), (3.0, 0.75), (4.0, 1.0)]);
        assert!(cumulative((0..10_000).map(f64::from)).len() <= CURVE_POINTS);
    }
}
