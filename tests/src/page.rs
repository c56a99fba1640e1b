//! The demo's report as one HTML page with plots inside.

use std::fmt::Write as _;

use anyhow::Result;
use plotters::prelude::*;

use crate::{
    chart::{self, Area, Curve, STYLE, drawing, escape},
    report::{Measured, Report},
    scheme::Scheme,
    stats::{Class, Figures},
    words::model_line,
};

const LOW: (u32, u32) = (960, 300);

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
    page.push_str(&chart::svg(LOW, |area| bars(area, report))?);
    writeln!(page, "<h2>Distribution of completion times</h2>")?;
    page.push_str(&chart::distribution(&curves(measured, distribution))?);
    writeln!(page, "<h2>Mean slowdown by size</h2>")?;
    page.push_str(&chart::by_size(&curves(measured, slowdown_curve))?);
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

fn bars(area: &Area<'_>, report: &Report) -> Result<()> {
    let of_class = |class: Class| Panel {
        name: format!("{}, ms", class.name()),
        bars: (report.schemes.iter())
            .map(|scheme| (scheme.name, scheme.summary.mean_ms(class)))
            .collect(),
    };
    panels(area, &Class::ALL.map(of_class))
}

/// Bars of one class of size.
pub(crate) struct Panel {
    /// What it shows.
    pub(crate) name: String,
    /// A figure of each scheme.
    pub(crate) bars: Vec<(Scheme, f64)>,
}

/// Panels side by side, each with a scale of its own.
pub(crate) fn panels(area: &Area<'_>, panels: &[Panel]) -> Result<()> {
    for (panel, Panel { name, bars: means }) in
        area.split_evenly((1, panels.len())).iter().zip(panels)
    {
        let top = means
            .iter()
            .fold(0.001, |top: f64, (_, mean)| top.max(*mean))
            * 1.15;
        let count = means.len() as f64;
        let mut chart = ChartBuilder::on(panel)
            .caption(name, ("sans-serif", 16))
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
            .y_label_formatter(&|value| short(*value))
            .light_line_style(TRANSPARENT)
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
                short(*mean),
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

/// Three digits at most.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value < 9.95 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn curves(measured: &[Measured], points: fn(&Measured) -> Vec<(f64, f64)>) -> Vec<Curve> {
    measured
        .iter()
        .map(|scheme| {
            let RGBColor(red, green, blue) = colour(scheme.scheme);
            Curve {
                name: scheme.scheme.name(),
                colour: (red, green, blue),
                points: points(scheme),
            }
        })
        .collect()
}

fn distribution(scheme: &Measured) -> Vec<(f64, f64)> {
    chart::cumulative(scheme.observations.iter().map(|seen| seen.fct_ms))
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
