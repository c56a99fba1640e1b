//! The demo's report in words: tables, and where treeline loses.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    mix::Service,
    report::{Report, RunFigures},
    scheme::Scheme,
    stats::Class,
};

impl Report {
    /// The report for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text)
            .expect("writing to a string can't fail");
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "Completion time (ms), mean and p99; slowdown = time over that of the idle link\n"
        )?;
        write!(text, "{:<10}", "scheme")?;
        for class in Class::ALL {
            let count = self
                .schemes
                .first()
                .map_or(0, |first| first.summary.fct_ms[&class].count);
            write!(text, "{:>20}", format!("{} (n={count})", class.name()))?;
        }
        writeln!(text, "{:>20}", "slowdown")?;
        for scheme in &self.schemes {
            let columns = scheme
                .summary
                .fct_ms
                .values()
                .chain([&scheme.summary.slowdown]);
            write!(text, "{:<10}", scheme.name.name())?;
            for figures in columns {
                write!(
                    text,
                    "{:>20}",
                    format!("{:.2} / {:.1}", figures.mean, figures.p99)
                )?;
            }
            writeln!(text)?;
        }
        writeln!(text, "\nMean completion time (ms) by service")?;
        for scheme in &self.schemes {
            write!(text, "{:<10}", scheme.name.name())?;
            for service in Service::ALL {
                let mean = scheme.summary.fct_ms_by_service[&service].mean;
                write!(text, "{:>20}", format!("{} {mean:.2}", service.name()))?;
            }
            writeln!(text)?;
        }
        writeln!(text, "\nPackets per band, top band first")?;
        for scheme in &self.schemes {
            let packets: Vec<String> = scheme
                .packets_per_band
                .iter()
                .map(|packets| format!("{packets:>8}"))
                .collect();
            writeln!(text, "{:<10}{}", scheme.name.name(), packets.join(" "))?;
        }
        writeln!(text)?;
        for (what, gap) in [
            ("mean completion time", self.gap_closed),
            ("mean slowdown", self.gap_closed_slowdown),
        ] {
            if let Some(gap) = gap {
                let percent = gap * 100.0;
                writeln!(
                    text,
                    "Gap from aging to the oracle closed, {what}: {percent:.0} %"
                )?;
            }
        }
        if let Some(model) = &self.model {
            writeln!(text, "Model: {}", model_line(model))?;
        }
        for remark in &self.remarks {
            writeln!(text, "Note: {remark}")?;
        }
        Ok(())
    }
}

/// The learned model in one line.
#[must_use]
pub fn model_line(model: &Value) -> String {
    let number = |key: &str| {
        model[key]
            .as_u64()
            .map_or_else(|| "?".into(), |n| n.to_string())
    };
    let train_ms = model["train_ms"]
        .as_f64()
        .map_or_else(|| "?".to_owned(), |ms| format!("{ms:.0}"));
    format!(
        "generation {}, {} tree(s), {} nodes, depth {}, trained on {} samples in {train_ms} ms, \
         {} packets classified",
        number("generation"),
        number("trees"),
        number("nodes"),
        number("depth"),
        number("trained_on_samples"),
        number("packets"),
    )
}

/// Says where treeline does not win, and why the figures may deserve doubt.
pub(crate) fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(ours) = report.scheme(Scheme::Treeline) {
        for other in [Scheme::Fifo, Scheme::Aging] {
            let Some(theirs) = report.scheme(other) else {
                continue;
            };
            for class in Class::ALL {
                let (ours, theirs) = (ours.summary.mean_ms(class), theirs.summary.mean_ms(class));
                if ours > theirs * 1.02 {
                    let percent = (ours / theirs - 1.0) * 100.0;
                    let what = if class == Class::All {
                        "all transfers together"
                    } else {
                        class.name()
                    };
                    remarks.push(format!(
                        "under treeline, {what}{} take {percent:.0} % longer than under {} \
                         ({ours:.2} against {theirs:.2} ms in the mean)",
                        if class == Class::All {
                            ""
                        } else {
                            " transfers"
                        },
                        other.name(),
                    ));
                }
            }
        }
        if report.gap_closed.is_none() && report.scheme(Scheme::Oracle).is_some() {
            remarks.push(
                "the oracle was hardly faster than aging, so there was no gap to close".to_owned(),
            );
        }
    }
    for scheme in &report.schemes {
        let RunFigures {
            unfinished, failed, ..
        } = scheme.run;
        if unfinished + failed > 0 {
            remarks.push(format!(
                "{}: {unfinished} messages were not finished and {failed} failed; they are \
                 missing in its figures",
                scheme.name.name()
            ));
        }
    }
    if report.disturbed {
        remarks.push(
            "the machine was busy with something else during a run: repeat before you quote"
                .to_owned(),
        );
    }
    if report.setting.quick {
        remarks.push(
            "a quick run holds few large transfers: their figures vary with the seed".to_owned(),
        );
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{sample_measurements, sample_setting};

    #[test]
    fn the_text_says_where_treeline_loses() {
        let mut measured = sample_measurements();
        for seen in &mut measured[2].observations {
            if seen.reply_bytes > 1_000_000 {
                seen.fct_ms *= 10.0;
            }
        }
        let text = Report::new(&measured, None, sample_setting()).to_text();
        assert!(
            text.contains("large transfers take 275 % longer than under fifo"),
            "{text}"
        );
        assert!(!text.contains("small transfers take"), "{text}");
    }
}
