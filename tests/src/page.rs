//! The demo's report as one HTML page with plots inside.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use plotters::{
    coord::{Shift, ranged1d::ValueFormatter},
    prelude::*,
};

use crate::{
    report::{Measured, Report},
    scheme::Scheme,
    stats::{Class, Figures},
    words::model_line,
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;background:#fff;\
    max-width:1000px;margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem}h2{font-size:1.15rem;\
    margin-top:2rem}table{border-collapse:collapse;margin:.6rem 0}th,td{padding:.3rem .8rem;\
    border-bottom:1px solid #dde2e8;text-align:right}th:first-child,td:first-child\
    {text-align:left}svg{max-width:100%;height:auto}.note{color:#555f6d}";

const WIDE: (u32, u32) = (960, 420);
const LOW: (u32, u32) = (960, 300);
/// Points of a distribution curve; more would only swell the page.
const CURVE_POINTS: usize = 400;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const fn colour(scheme: Scheme) -> RGBColor {
    match scheme {
        Scheme::Fifo => RGBColor(120, 127, 137),
        Scheme::Aging => RGBColor(222, 143, 5),
        Scheme::Treeline => RGBColor(2, 138, 94),
        Scheme::Oracle => RGBColor(1, 105, 178),
    }
}

/// Renders the page; it needs nothing from elsewhere.
///
/// # Errors
///
/// When a plot can't be drawn.
pub fn render(report: &Report, measured: &[Measured]) -> Result<String> {
    let setting = &report.setting;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>treeline: the same arrivals under four schemes</title>\
         <style>{STYLE}</style></head><body>\n\
         <h1>treeline: the same arrivals under four schemes</h1>\n\
         <p>Real TCP between two network namespaces; uplink {:.0} Mbit/s, offered load {:.2}, \
         {} round(s) of {:.0} s for each scheme, seed {}, kernel {}.</p>\n",
        setting.rate_bps as f64 / 1e6,
        setting.load,
        setting.rounds,
        setting.run_s,
        setting.seed,
        escape(&setting.kernel),
    );
    figures_table(&mut page, report)?;
    if let Some(gap) = report.gap_closed {
        writeln!(
            page,
            "<p><b>{:.0} %</b> of the gap in mean completion time from aging to the oracle \
             closed.</p>",
            gap * 100.0
        )?;
    }
    if let Some(model) = &report.model {
        writeln!(
            page,
            "<p>Model learned in this run: {}.</p>",
            escape(&model_line(model))
        )?;
    }
    for remark in &report.remarks {
        writeln!(page, "<p class=\"note\">Note: {}.</p>", escape(remark))?;
    }
    writeln!(page, "<h2>Mean completion time by class</h2>")?;
    page.push_str(&plot(LOW, |area| bars(area, report))?);
    writeln!(page, "<h2>Distribution of completion times</h2>")?;
    page.push_str(&plot(WIDE, |area| distribution(area, measured))?);
    writeln!(page, "<h2>Mean slowdown by size</h2>")?;
    page.push_str(&plot(WIDE, |area| slowdown_by_size(area, measured))?);
    bands_table(&mut page, report)?;
    writeln!(page, "</body></html>")?;
    Ok(page)
}

fn figures_table(page: &mut String, report: &Report) -> Result<()> {
    write!(page, "<table><tr><th>completion time, ms (mean / p99)</th>")?;
    for class in Class::ALL {
        let count = report
            .schemes
            .first()
            .map_or(0, |first| first.summary.fct_ms[&class].count);
        write!(page, "<th>{} ({count})</th>", class.name())?;
    }
    writeln!(page, "<th>slowdown</th></tr>")?;
    for scheme in &report.schemes {
        write!(page, "<tr><td>{}</td>", scheme.name.name())?;
        for Figures { mean, p99, .. } in scheme
            .summary
            .fct_ms
            .values()
            .chain([&scheme.summary.slowdown])
        {
            write!(page, "<td>{mean:.2} / {p99:.1}</td>")?;
        }
        writeln!(page, "</tr>")?;
    }
    writeln!(page, "</table>")?;
    Ok(())
}

fn bands_table(page: &mut String, report: &Report) -> Result<()> {
    writeln!(
        page,
        "<h2>Packets per band, and how the runs went</h2><table>"
    )?;
    write!(page, "<tr><th>scheme</th>")?;
    for band in 1..=8 {
        write!(page, "<th>{band}</th>")?;
    }
    writeln!(
        page,
        "<th>resent</th><th>generator late, ms (mean)</th><th>its CPU</th></tr>"
    )?;
    for scheme in &report.schemes {
        write!(page, "<tr><td>{}</td>", scheme.name.name())?;
        for band in 0..8 {
            let packets = scheme.packets_per_band.get(band).map(u64::to_string);
            write!(page, "<td>{}</td>", packets.unwrap_or_default())?;
        }
        writeln!(
            page,
            "<td>{}</td><td>{:.2}</td><td>{:.0} %</td></tr>",
            scheme.run.retransmitted,
            scheme.run.lateness_mean_ms,
            scheme.run.generator_cpu * 100.0
        )?;
    }
    writeln!(page, "</table>")?;
    Ok(())
}

fn plot(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    draw(&area)?;
    area.present().map_err(drawing)?;
    drop(area);
    // Fixed sizes would keep the picture from shrinking with the window.
    let wanted = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    Ok(svg.replacen(&wanted, "<svg", 1))
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw a plot: {error}")
}

fn bars(area: &Area<'_>, report: &Report) -> Result<()> {
    for (panel, class) in area
        .split_evenly((1, Class::ALL.len()))
        .iter()
        .zip(Class::ALL)
    {
        let means: Vec<(Scheme, f64)> = report
            .schemes
            .iter()
            .map(|s| (s.name, s.summary.mean_ms(class)))
            .collect();
        let top = means
            .iter()
            .fold(0.001, |top: f64, (_, mean)| top.max(*mean))
            * 1.15;
        let count = means.len() as f64;
        let mut chart = ChartBuilder::on(panel)
            .caption(format!("{}, ms", class.name()), ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(26)
            .y_label_area_size(44)
            .build_cartesian_2d(0.0..count, 0.0..top)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .y_labels(6)
            .draw()
            .map_err(drawing)?;
        let (_, height) = panel.dim_in_pixel();
        for (place, (scheme, mean)) in means.iter().enumerate() {
            let left = place as f64;
            let bar = Rectangle::new(
                [(left + 0.12, 0.0), (left + 0.88, *mean)],
                colour(*scheme).filled(),
            );
            let value = Text::new(
                format!("{mean:.1}"),
                (left + 0.2, mean + top * 0.06),
                ("sans-serif", 12).into_font(),
            );
            chart.draw_series([bar]).map_err(drawing)?;
            chart.draw_series([value]).map_err(drawing)?;
            let x = chart.backend_coord(&(left + 0.12, 0.0)).0 - panel.get_base_pixel().0;
            let name = Text::new(
                scheme.name(),
                (x, height as i32 - 28),
                ("sans-serif", 12).into_font(),
            );
            panel.draw(&name).map_err(drawing)?;
        }
    }
    Ok(())
}

fn distribution(area: &Area<'_>, measured: &[Measured]) -> Result<()> {
    let all = || {
        measured
            .iter()
            .flat_map(|m| &m.observations)
            .map(|seen| seen.fct_ms)
    };
    let low = all().fold(f64::INFINITY, f64::min).clamp(0.01, 1e6);
    let high = all().fold(low * 10.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d((low..high).log_scale(), 0.0..1.0)
        .map_err(drawing)?;
    describe_axes(
        &mut chart,
        "completion time, ms (log scale)",
        "share of messages",
    )?;
    for scheme in measured {
        let mut times: Vec<f64> = scheme.observations.iter().map(|seen| seen.fct_ms).collect();
        times.sort_unstable_by(f64::total_cmp);
        let step = times.len().div_ceil(CURVE_POINTS).max(1);
        let count = times.len() as f64;
        let curve = times
            .iter()
            .enumerate()
            .step_by(step)
            .map(|(i, ms)| (*ms, (i + 1) as f64 / count));
        draw_curve(&mut chart, scheme.scheme, curve.collect())?;
    }
    draw_legend(&mut chart)
}

fn slowdown_by_size(area: &Area<'_>, measured: &[Measured]) -> Result<()> {
    let curves: Vec<(Scheme, Vec<(f64, f64)>)> = measured
        .iter()
        .map(|scheme| (scheme.scheme, slowdown_curve(scheme)))
        .collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve);
    let high = points().fold(2.0, |high: f64, (_, slowdown)| high.max(*slowdown));
    let low = points().fold(1.0, |low: f64, (_, slowdown)| low.min(*slowdown));
    let largest = points().fold(1.0, |largest: f64, (kilobytes, _)| largest.max(*kilobytes));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(44)
        .y_label_area_size(60)
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
    for (scheme, curve) in curves {
        draw_curve(&mut chart, scheme, curve)?;
    }
    draw_legend(&mut chart)
}

/// Mean slowdown in bins of a factor of two; thin bins are left out.
fn slowdown_curve(measured: &Measured) -> Vec<(f64, f64)> {
    const FEWEST: usize = 3;
    (0..40)
        .filter_map(|bin| {
            let chosen: Vec<f64> = measured
                .observations
                .iter()
                .filter(|seen| seen.reply_bytes.max(1).ilog2() == bin)
                .map(|seen| seen.slowdown)
                .collect();
            let middle_kb = 2f64.powf(f64::from(bin) + 0.5) / 1e3;
            (chosen.len() >= FEWEST).then(|| (middle_kb, Figures::of(chosen).mean))
        })
        .collect()
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
        .map_err(drawing)
}

fn draw_curve<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    scheme: Scheme,
    curve: Vec<(f64, f64)>,
) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let style = colour(scheme).stroke_width(2);
    chart
        .draw_series(LineSeries::new(curve, style))
        .map_err(drawing)?
        .label(scheme.name())
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    Ok(())
}

fn draw_legend<'a, X, Y>(chart: &mut Chart<'a, 'a, X, Y>) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(221, 226, 232))
        .label_font(("sans-serif", 13))
        .draw()
        .map_err(drawing)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{sample_measurements, sample_setting};

    #[test]
    fn the_page_holds_its_plots_and_asks_nobody_for_anything() {
        let measured = sample_measurements();
        let report = Report::new(&measured, None, sample_setting());
        let page = render(&report, &measured).unwrap();
        assert_eq!(page.matches("<svg").count(), 3);
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!links.contains("http") && !links.contains("src="));
        for scheme in Scheme::ALL {
            assert!(page.matches(scheme.name()).count() >= 4);
        }
    }
}
