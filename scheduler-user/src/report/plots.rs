//! The report's pictures.

use plotters::{coord::ranged1d::ValueFormatter, prelude::*};

use super::worth::{Worth, classes};
use crate::{
    model::human_bytes,
    page::{Area, Colour, PlotError, svg},
    qdisc::BandStats,
    simulate::Replay,
    training::Lean,
};

const WIDE: (u32, u32) = (760, 320);
const SQUARE: (u32, u32) = (520, 440);
const FONT: &str = "sans-serif";

/// A picture's outcome.
type Drawn = Result<String, PlotError>;

/// Bars that stand beside one another: a colour and the height of each group.
struct Series {
    colour: Colour,
    heights: Vec<f64>,
}

/// Mean slowdown by class of size, under each discipline.
pub(super) fn slowdowns(worth: &Worth) -> Drawn {
    let classes = classes(&worth.all.fifo);
    let of = |colour, replay: &Replay| Series {
        colour,
        heights: (classes.iter())
            .map(|(_, figures)| figures(replay).mean_slowdown)
            .collect(),
    };
    let comparison = &worth.all;
    let mut series = vec![
        of(Colour::Fifo, &comparison.fifo),
        of(Colour::Aging, &comparison.aging),
    ];
    series.extend(
        comparison
            .learned
            .as_ref()
            .map(|it| of(Colour::Learned, it)),
    );
    let names: Vec<String> = classes.into_iter().map(|(name, _)| name).collect();
    // An idle link is the ground that bars stand on.
    let scale = Scale {
        height: |value| value.max(1.0).log10(),
        label: |value| format!("{value:.*}", usize::from(value < 99.5)),
        is_even: false,
    };
    bars(&names, &series, &scale)
}

/// Share of the bytes and of the packets that each band has carried.
pub(super) fn traffic(bands: &[BandStats]) -> Drawn {
    let share = |of: fn(&BandStats) -> u64| {
        let total = bands.iter().map(of).sum::<u64>().max(1) as f64;
        bands
            .iter()
            .map(|it| 100.0 * of(it) as f64 / total)
            .collect()
    };
    let names: Vec<String> = bands.iter().map(|it| format!("band {}", it.band)).collect();
    let series = [
        Series {
            colour: Colour::Oracle,
            heights: share(|it| it.bytes),
        },
        Series {
            colour: Colour::Aging,
            heights: share(|it| it.packets),
        },
    ];
    let scale = Scale {
        height: |value| value,
        label: |value| match value {
            0.0 => "0".to_owned(),
            _ if value < 0.05 => "<0.1".to_owned(),
            _ if value < 9.95 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        },
        is_even: true,
    };
    bars(&names, &series, &scale)
}

/// How values become bars.
struct Scale {
    height: fn(f64) -> f64,
    /// The value above its bar.
    label: fn(f64) -> String,
    /// Whether equal steps up are equal steps of the value, so that lines behind the bars say something.
    is_even: bool,
}

fn bars(names: &[String], series: &[Series], scale: &Scale) -> Drawn {
    let heights = series.iter().flat_map(|it| &it.heights);
    let top = heights.fold(0.01, |top: f64, value| top.max((scale.height)(*value))) * 1.12;
    svg(WIDE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(30)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..names.len() as f64, 0.0..top)
            .map_err(PlotError::of)?;
        let ink = Colour::Ink.light();
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .disable_x_axis()
            .y_labels(6)
            .y_label_formatter(&|value| format!("{value:.0} %"))
            .light_line_style(TRANSPARENT)
            .bold_line_style(Colour::Grid.light())
            .axis_style(Colour::Grid.light())
            .label_style((FONT, 13, &ink));
        if !scale.is_even {
            mesh.disable_y_mesh().disable_y_axis();
        }
        mesh.draw().map_err(PlotError::of)?;
        let width = 0.8 / series.len() as f64;
        for (place, Series { colour, heights }) in series.iter().enumerate() {
            for (group, value) in heights.iter().enumerate() {
                let height = (scale.height)(*value);
                let left = group as f64 + 0.1 + place as f64 * width;
                let right = left + width * 0.92;
                let bar = Rectangle::new([(left, 0.0), (right, height)], colour.light().filled());
                chart.draw_series([bar]).map_err(PlotError::of)?;
                let (x, y) = chart.backend_coord(&(f64::midpoint(left, right), height));
                write(area, &(scale.label)(*value), (x, y - 16))?;
            }
        }
        for (group, name) in names.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
            write(area, name, (x, y + 8))?;
        }
        Ok(())
    })
}

/// Text whose upper edge is centred there.
fn write(area: &Area<'_>, text: &str, at: (i32, i32)) -> Result<(), PlotError> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    let ink = Colour::Ink.light();
    let style = TextStyle::from((FONT, 13).into_font())
        .color(&ink)
        .pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(text.to_owned(), at, style))
        .map_err(PlotError::of)
}

/// What was foretold, and what it turned out to be, both in bytes.
pub(super) fn foretold(leans: &[Lean]) -> Drawn {
    // A guess lies anywhere within its bucket; its middle stands for it.
    let points = || {
        leans.iter().map(|lean| {
            let guess = f64::from(lean.predicted_log2) + 0.5;
            (guess, guess - lean.bias_log2, lean.rows)
        })
    };
    let ends = points().flat_map(|(guess, real, _)| [guess, real]);
    let (low, high) = ends.fold((f64::MAX, f64::MIN), |(low, high), it| {
        (low.min(it), high.max(it))
    });
    let (low, high) = (low.floor() - 0.5, high.ceil() + 0.5);
    let most = points().map(|(_, _, rows)| rows).max().unwrap_or(1).max(1) as f64;
    svg(SQUARE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(46)
            .y_label_area_size(72)
            .build_cartesian_2d(low..high, low..high)
            .map_err(PlotError::of)?;
        let bytes = |log2: &f64| human_bytes(log2.exp2());
        describe(&mut chart, &bytes)?;
        chart
            .draw_series(LineSeries::new(
                [(low, low), (high, high)],
                Colour::Fifo.light().stroke_width(2),
            ))
            .map_err(PlotError::of)?;
        chart
            .draw_series(points().map(|(guess, real, rows)| {
                let radius = 4.0 + 12.0 * (rows as f64 / most).sqrt();
                let style = Colour::Learned.light().filled();
                Circle::new((guess, real), radius as i32, style)
            }))
            .map_err(PlotError::of)?;
        Ok(())
    })
}

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

fn describe<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    label: &dyn Fn(&f64) -> String,
) -> Result<(), PlotError>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_labels(7)
        .y_labels(7)
        .x_desc("foretold bytes to come")
        .y_desc("bytes that came")
        .x_label_formatter(label)
        .y_label_formatter(label)
        .light_line_style(TRANSPARENT)
        .bold_line_style(Colour::Grid.light())
        .axis_style(Colour::Grid.light())
        .label_style((FONT, 13, &Colour::Ink.light()))
        .axis_desc_style((FONT, 14, &Colour::Ink.light()))
        .draw()
        .map_err(PlotError::of)
}
