//! The report for a terminal.

use std::fmt::Write as _;

use bed::stats::Class;

use crate::{
    bars::losses,
    change::Change,
    figures::Spread,
    report::{Cell, Report},
    saturation::Saturation,
};

impl Report {
    /// Tables, one a cell.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text)
            .expect("writing to a string can't fail");
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        let setting = &self.setting;
        writeln!(
            text,
            "{:.0} Mbit/s, sizes x {}, {} rounds of {} s, kernel {}, seed {}{}\n\
             Medians of rounds [range]; completion times in ms; sizes before scaling: small up to 100 KB, medium to 10 MB",
            setting.rate_bps as f64 / 1e6,
            setting.scale,
            setting.rounds,
            setting.run_s,
            setting.kernel,
            setting.seed,
            setting.against_noise()
        )?;
        for cell in &self.cells {
            write_cell(text, cell)?;
        }
        for change in &self.changes {
            write_change(text, change)?;
        }
        for saturation in &self.saturation {
            write_saturation(text, saturation)?;
        }
        Ok(())
    }
}

fn ranged(spread: &Spread) -> String {
    let digits = if spread.median < 10.0 { 2 } else { 1 };
    let Spread { median, min, max } = spread;
    format!("{median:.digits$} [{min:.digits$}..{max:.digits$}]")
}

fn write_cell(text: &mut String, cell: &Cell) -> std::fmt::Result {
    writeln!(
        text,
        "\n({}) {} on the {} bed, load {}: {}",
        cell.group,
        cell.workload,
        cell.bed.name(),
        cell.load,
        cell.about
    )?;
    writeln!(
        text,
        "{:<14}{:>22}{:>20}{:>9}{:>20}{:>22}{:>20}{:>9}{:>9}{:>7}",
        "scheme",
        "mean",
        "small mean",
        "p99",
        "medium mean",
        "large mean",
        "slowdown",
        "p99",
        "resent",
        "drops"
    )?;
    for scheme in &cell.schemes {
        let of = |class| scheme.times(class);
        let all = of(Class::All);
        let count = |value: fn(&crate::figures::RunReport) -> u64| {
            scheme.runs.iter().map(value).sum::<u64>()
        };
        let sent = count(|run| run.sent_segments).max(1);
        writeln!(
            text,
            "{:<14}{:>22}{:>20}{:>9.2}{:>20}{:>22}{:>20}{:>9.1}{:>8.2}%{:>7}",
            scheme.name.name(),
            ranged(&all.fct_mean_ms),
            ranged(&of(Class::Small).fct_mean_ms),
            of(Class::Small).fct_p99_ms.median,
            ranged(&of(Class::Medium).fct_mean_ms),
            ranged(&of(Class::Large).fct_mean_ms),
            ranged(&all.slowdown_mean),
            all.slowdown_p99.median,
            count(|run| run.retransmitted_segments) as f64 * 100.0 / sent as f64,
            count(|run| run.drops),
        )?;
    }
    for scheme in &cell.schemes {
        if let Some(ratios) = &scheme.to_aging {
            writeln!(
                text,
                "  {:<13} over aging, paired: mean {}, slowdown {}, small {}, medium {}, large {}",
                scheme.name.name(),
                ranged(&ratios.fct_mean),
                ranged(&ratios.slowdown_mean),
                ranged(&ratios.small_fct_mean),
                ranged(&ratios.medium_fct_mean),
                ranged(&ratios.large_fct_mean),
            )?;
        }
    }
    let gap = cell.gap_closed;
    for (what, by_round, of_medians) in [
        (
            "mean completion time",
            gap.fct_mean,
            gap.fct_mean_of_medians,
        ),
        (
            "mean slowdown",
            gap.slowdown_mean,
            gap.slowdown_mean_of_medians,
        ),
    ] {
        if let (Some(by_round), Some(of_medians)) = (by_round, of_medians) {
            writeln!(
                text,
                "  gap from aging to the oracle closed, {what}: {} by round, {of_medians:.2} of the medians",
                ranged(&by_round)
            )?;
        }
    }
    for loss in losses(cell) {
        writeln!(text, "  treeline loses: {loss}")?;
    }
    let disturbed = cell.disturbed();
    if disturbed > 0 {
        writeln!(
            text,
            "  {disturbed} runs were disturbed, also when repeated: take the figures with care"
        )?;
    }
    Ok(())
}

fn write_change(text: &mut String, change: &Change) -> std::fmt::Result {
    writeln!(
        text,
        "\n(e) {} on the {} bed, load {}: {}; it changes at {:.0} s",
        change.workload,
        change.bed.name(),
        change.load,
        change.about,
        change.changes_at_s
    )?;
    writeln!(
        text,
        "  from s   messages   slowdown: aging   treeline   oracle   treeline/aging   but the slowest 1/1000"
    )?;
    for window in &change.windows {
        writeln!(
            text,
            "  {:>6.0}{:>11}{:>18.2}{:>11.2}{:>9.2}{:>17.2}{:>26.2}",
            window.start_s,
            window.messages,
            window.aging,
            window.treeline,
            window.oracle,
            window.to_aging,
            window.trimmed_to_aging
        )?;
    }
    if !change.disturbed.is_empty() {
        writeln!(
            text,
            "  disturbed: {}; take the figures with care",
            change.disturbed.join(", ")
        )?;
    }
    Ok(())
}

fn write_saturation(text: &mut String, saturation: &Saturation) -> std::fmt::Result {
    writeln!(
        text,
        "\nFull link on the {} bed: {} transfers without end, {:.0} s; payload in Mbit/s, and over fifo",
        saturation.bed.name(),
        saturation.transfers,
        saturation.seconds
    )?;
    for filled in &saturation.schemes {
        let Spread { median, min, max } = filled.goodput_bps;
        let over = filled.to_fifo.map_or_else(String::new, |spread| {
            format!(
                "{:.3} [{:.3}..{:.3}]",
                spread.median, spread.min, spread.max
            )
        });
        writeln!(
            text,
            "  {:<14}{:>8.2} [{:.2}..{:.2}]  {over}",
            filled.name.name(),
            median / 1e6,
            min / 1e6,
            max / 1e6
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::report::tests::sample_report;

    #[test]
    fn the_text_has_a_line_for_each_scheme_and_the_gap() {
        let text = sample_report().to_text();
        for name in [
            "fifo",
            "pfifo-fast",
            "aging-100k",
            "treeline",
            "oracle-srpt",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(name)),
                "{name}: {text}"
            );
        }
        assert!(
            text.contains("gap from aging to the oracle closed, mean slowdown: 0.50"),
            "{text}"
        );
    }
}
