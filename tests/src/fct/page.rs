//! The report as one HTML page with plots inside.

use std::fmt::Write as _;

use anyhow::Result;
use bed::{
    chart::{self, Curve, STYLE, escape},
    stats::{Class, Figures, Observation},
};

use crate::{
    bars::losses,
    figures::Spread,
    report::{Cell, Report},
    scheme::Scheme,
};

const fn colour(scheme: Scheme) -> (u8, u8, u8) {
    match scheme {
        Scheme::Fifo => (120, 127, 137),
        Scheme::PfifoFast => (176, 180, 186),
        Scheme::PortRules => (150, 110, 70),
        Scheme::Qosify => (190, 150, 110),
        Scheme::FqCodel => (190, 30, 45),
        Scheme::Fq => (225, 120, 120),
        Scheme::CakeBesteffort => (120, 60, 150),
        Scheme::CakeDiffserv4 => (170, 120, 200),
        Scheme::Prio => (90, 90, 40),
        Scheme::Ets => (150, 150, 90),
        Scheme::Aging100k => (204, 121, 167),
        Scheme::AgingDefault => (240, 200, 60),
        Scheme::Aging => (222, 143, 5),
        Scheme::Treeline => (2, 138, 94),
        Scheme::Oracle => (1, 105, 178),
        Scheme::OracleSrpt => (86, 180, 233),
    }
}

/// Renders the page; it needs nothing from elsewhere.
///
/// # Errors
/// When a plot can't be drawn.
pub(crate) fn render(report: &Report) -> Result<String> {
    let setting = &report.setting;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>treeline: completion times</title><style>{STYLE}</style></head><body>\n\
         <h1>treeline: completion times under several schedulers</h1>\n\
         <p>Real TCP ({}) between network namespaces; {:.0} Mbit/s, published sizes times {}, {} rounds of {} s, \
         seed {}, kernel {}, {} processors{}. Command: <code>{}</code></p>\n",
        setting.congestion_control,
        setting.rate_bps as f64 / 1e6,
        setting.scale,
        setting.rounds,
        setting.run_s,
        setting.seed,
        escape(&setting.kernel),
        setting.processors,
        setting.against_noise(),
        escape(&setting.command),
    );
    bars_table(&mut page, report)?;
    for cell in &report.cells {
        render_cell(&mut page, cell)?;
    }
    for change in &report.changes {
        writeln!(
            page,
            "<h2>(e) {} on the {} bed: mean slowdown by windows of {:.0} s</h2><p>{}; it changes at {:.0} s.</p>",
            change.workload,
            change.bed.name(),
            change.window_s,
            escape(change.about),
            change.changes_at_s
        )?;
        let curve = |scheme: Scheme, value: fn(&crate::change::Window) -> f64| Curve {
            name: scheme.name(),
            colour: colour(scheme),
            points: change
                .windows
                .iter()
                .map(|window| (window.start_s, value(window)))
                .collect(),
        };
        page.push_str(&chart::lines(&[
            curve(Scheme::Aging, |window| window.aging),
            curve(Scheme::Treeline, |window| window.treeline),
            curve(Scheme::Oracle, |window| window.oracle),
        ])?);
    }
    if !report.saturation.is_empty() {
        writeln!(
            page,
            "<h2>A full link</h2><table><tr><th>bed</th><th>scheme</th><th>payload, Mbit/s</th><th>over fifo</th></tr>"
        )?;
        for saturation in &report.saturation {
            for filled in &saturation.schemes {
                writeln!(
                    page,
                    "<tr><td>{}</td><td>{}</td><td>{:.2}</td><td>{}</td></tr>",
                    saturation.bed.name(),
                    filled.name.name(),
                    filled.goodput_bps.median / 1e6,
                    filled
                        .to_fifo
                        .map_or_else(String::new, |spread| format!("{:.3}", spread.median))
                )?;
            }
        }
        writeln!(page, "</table>")?;
    }
    writeln!(page, "</body></html>")?;
    Ok(page)
}

fn bars_table(page: &mut String, report: &Report) -> Result<()> {
    if report.bars.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "<h2>What is to be reached</h2><table><tr><th>figure</th><th>measured</th><th>wanted</th><th></th></tr>"
    )?;
    for bar in &report.bars {
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{} {}</td><td>{}</td></tr>",
            escape(&bar.what),
            bar.figure
                .map_or_else(|| "none".to_owned(), |figure| format!("{figure:.3}")),
            if bar.at_least { "at least" } else { "at most" },
            bar.bar,
            if bar.met { "met" } else { "<b>missed</b>" }
        )?;
    }
    writeln!(page, "</table>")?;
    Ok(())
}

fn render_cell(page: &mut String, cell: &Cell) -> Result<()> {
    writeln!(
        page,
        "<h2>({}) {} on the {} bed, load {}</h2><p>{}.</p>",
        cell.group,
        cell.workload,
        cell.bed.name(),
        cell.load,
        escape(cell.about)
    )?;
    times_table(page, cell)?;
    services_table(page, cell)?;
    for (what, gap) in [
        ("mean completion time", cell.gap_closed.fct_mean),
        ("mean slowdown", cell.gap_closed.slowdown_mean),
    ] {
        if let Some(Spread { median, min, max }) = gap {
            writeln!(
                page,
                "<p>Share of the gap from aging to the oracle that treeline closed in {what}: <b>{median:.2}</b> [{min:.2} to {max:.2}].</p>"
            )?;
        }
    }
    for loss in losses(cell) {
        writeln!(
            page,
            "<p class=\"note\">treeline loses: {}.</p>",
            escape(&loss)
        )?;
    }
    let curves = |points: fn(&[Observation]) -> Vec<(f64, f64)>| -> Vec<Curve> {
        cell.schemes
            .iter()
            .map(|scheme| Curve {
                name: scheme.name.name(),
                colour: colour(scheme.name),
                points: points(&scheme.seen),
            })
            .collect()
    };
    writeln!(page, "<h3>Distribution of completion times</h3>")?;
    page.push_str(&chart::distribution(&curves(cumulative))?);
    writeln!(page, "<h3>Mean slowdown by size (as sent)</h3>")?;
    page.push_str(&chart::by_size(&curves(slowdown_by_size))?);
    writeln!(page, "<details><summary>Settings</summary><ul>")?;
    for scheme in &cell.schemes {
        writeln!(
            page,
            "<li>{}: <code>{}</code>; cuts {:?}</li>",
            scheme.name.name(),
            escape(&scheme.settings.join("; ")),
            scheme.cuts_bytes
        )?;
    }
    writeln!(page, "</ul></details>")?;
    Ok(())
}

fn times_table(page: &mut String, cell: &Cell) -> Result<()> {
    write!(page, "<table><tr><th>ms: mean [range] / p50 / p99</th>")?;
    for class in Class::ALL {
        write!(page, "<th>{}</th>", class.name())?;
    }
    writeln!(
        page,
        "<th>slowdown mean / p99</th><th>over aging</th><th>resent</th><th>dropped</th></tr>"
    )?;
    for scheme in &cell.schemes {
        write!(page, "<tr><td>{}</td>", scheme.name.name())?;
        for class in Class::ALL {
            let times = scheme.times(class);
            let Spread { median, min, max } = times.fct_mean_ms;
            write!(
                page,
                "<td>{median:.2} [{min:.2}..{max:.2}] / {:.2} / {:.1}</td>",
                times.fct_p50_ms.median, times.fct_p99_ms.median
            )?;
        }
        let all = scheme.times(Class::All);
        let over = scheme.to_aging.map_or_else(String::new, |ratios| {
            format!("{:.2}", ratios.fct_mean.median)
        });
        writeln!(
            page,
            "<td>{:.2} / {:.1}</td><td>{over}</td><td>{}</td><td>{}</td></tr>",
            all.slowdown_mean.median,
            all.slowdown_p99.median,
            scheme
                .runs
                .iter()
                .map(|run| run.retransmitted_segments)
                .sum::<u64>(),
            scheme.runs.iter().map(|run| run.drops).sum::<u64>()
        )?;
    }
    writeln!(page, "</table>")?;
    Ok(())
}

fn services_table(page: &mut String, cell: &Cell) -> Result<()> {
    let Some(first) = cell
        .schemes
        .first()
        .filter(|scheme| scheme.by_service.len() > 1)
    else {
        return Ok(());
    };
    write!(page, "<table><tr><th>mean ms / slowdown by service</th>")?;
    for name in first.by_service.keys() {
        write!(page, "<th>{name}</th>")?;
    }
    writeln!(page, "</tr>")?;
    for scheme in &cell.schemes {
        write!(page, "<tr><td>{}</td>", scheme.name.name())?;
        for times in scheme.by_service.values() {
            write!(
                page,
                "<td>{:.2} / {:.2}</td>",
                times.fct_mean_ms.median, times.slowdown_mean.median
            )?;
        }
        writeln!(page, "</tr>")?;
    }
    writeln!(page, "</table>")?;
    Ok(())
}

fn cumulative(seen: &[Observation]) -> Vec<(f64, f64)> {
    chart::cumulative(seen.iter().map(|one| one.fct_ms))
}

fn slowdown_by_size(seen: &[Observation]) -> Vec<(f64, f64)> {
    const FEWEST: usize = 3;
    (0..40)
        .filter_map(|bin| {
            let chosen = seen
                .iter()
                .filter(|one| one.reply_bytes.max(1).ilog2() == bin);
            let figures = Figures::of(chosen.map(|one| one.slowdown));
            let middle_kb = 2f64.powf(f64::from(bin) + 0.5) / 1e3;
            (figures.count >= FEWEST).then_some((middle_kb, figures.mean))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample_report;

    #[test]
    fn the_page_holds_its_plots_and_asks_nobody_for_anything() {
        let page = render(&sample_report()).unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!links.contains("http") && !links.contains("src="));
        for scheme in Scheme::ALL {
            assert!(page.contains(scheme.name()), "{}", scheme.name());
        }
    }
}
