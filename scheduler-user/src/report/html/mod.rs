//! The report as one page.

mod changed;
mod learned;

use std::fmt::Write as _;

use super::{
    Report, Source, Worth,
    plots::slowdowns,
    times::minute,
    words::{is_empty, ms, office},
    worth::{classes, ratio, scheduled},
};
use crate::{
    advice::Comparison,
    model::human_bytes,
    page::{PlotError, STYLE, escape},
    qdisc::format_rate,
    simulate::Replay,
};

/// Nothing may come from elsewhere, and no script runs.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// A page under construction.
struct Page(String);

impl Page {
    fn add(&mut self, html: std::fmt::Arguments<'_>) {
        // A string takes any text.
        let _always = self.0.write_fmt(html).is_ok();
        self.0.push('\n');
    }

    fn figure(&mut self, name: &str, drawn: &str, caption: &str) {
        // Not larger than it was drawn: text in it would outgrow the page's.
        let size = drawn.split("viewBox=\"0 0 ").nth(1);
        let width = size.and_then(|it| it.split(' ').next()).unwrap_or("760");
        let labelled = format!(
            "<svg role=\"img\" style=\"max-width:min(100%,{width}px)\" aria-label=\"{}\"",
            escape(name)
        );
        let drawn = drawn.replacen("<svg", &labelled, 1);
        self.add(format_args!(
            "<figure>{drawn}<figcaption>{caption}</figcaption></figure>"
        ));
    }
}

/// Renders the page; it needs nothing from elsewhere.
///
/// # Errors
/// A plot can't be drawn.
pub fn render(report: &Report) -> Result<String, PlotError> {
    let mut page = Page(String::new());
    head(&mut page, report);
    if !is_empty(report) {
        tiles(&mut page, report);
    }
    next(&mut page, report);
    if !is_empty(report) {
        if let Some(worth) = &report.worth {
            meant(&mut page, worth)?;
        }
        learned::learned(&mut page, report)?;
        changed::changed(&mut page, report);
        changed::now(&mut page, report)?;
    }
    words(&mut page);
    if report.unreadable > 0 {
        page.add(format_args!(
            "<p class=\"note\">{} lines of the journal or files of models can't be read: damaged, or of a later treeline.</p>",
            report.unreadable
        ));
    }
    page.add(format_args!("</main></body></html>"));
    Ok(page.0)
}

fn head(page: &mut Page, report: &Report) {
    let Report {
        host,
        instance,
        version,
        period,
        headline,
        ..
    } = report;
    let host = escape(host);
    page.add(format_args!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>treeline on {host}: {} to {}</title>\n<style>{STYLE}</style></head><body><main>",
        minute(period.from_unix_s),
        minute(period.to_unix_s),
    ));
    page.add(format_args!(
        "<p class=\"over\">treeline {version} on {host}, instance {} · {} to {} UTC</p>\n<h1>{}</h1>",
        escape(instance),
        minute(period.from_unix_s),
        minute(period.to_unix_s),
        escape(headline),
    ));
    page.add(format_args!(
        "<p class=\"note\">treeline is a packet scheduler: where packets queue, it lets those go first whose message is \
         nearly done. It learns from the host's own traffic which messages stay short, and a model acts only after it \
         has beaten, on later traffic, what needs no learning.</p>"
    ));
}

fn tiles(page: &mut Page, report: &Report) {
    let mut tiles: Vec<(String, String)> = Vec::new();
    if let Some(worth) = &report.worth {
        let gain = worth.gain();
        tiles.push((
            format!(
                "{gain:.gain_digits$}×",
                gain_digits = usize::from(gain < 9.95)
            ),
            "sooner complete than without scheduling, on average, in a replay".to_owned(),
        ));
        if let Some(gain) = worth.gain_of_learning() {
            tiles.push((
                format!("{:+.0} %", (gain - 1.0) * 100.0),
                "speed by what was learned, over serving by the bytes sent alone".to_owned(),
            ));
        }
    }
    match report.model.as_ref().filter(|model| model.acts) {
        Some(model) => tiles.push((
            format!("model {}", model.summary.generation),
            format!(
                "{}, learned from {} samples",
                office(report),
                model.summary.trained_on_samples
            ),
        )),
        None => tiles.push((
            "no model".to_owned(),
            "the bytes that a message has sent decide".to_owned(),
        )),
    }
    let steps = &report.steps;
    if steps.trained > 0 {
        tiles.push((
            format!("{} of {}", steps.promoted, steps.trained),
            "models that were learned in this time were good enough to act".to_owned(),
        ));
    }
    page.add(format_args!("<div class=\"tiles\">"));
    for (value, what) in tiles {
        page.add(format_args!(
            "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
            escape(&value),
            escape(&what)
        ));
    }
    page.add(format_args!("</div>"));
}

fn next(page: &mut Page, report: &Report) {
    page.add(format_args!("<h2>What you can do</h2><table>"));
    for advised in &report.next {
        page.add(format_args!(
            "<tr><td><code>{}</code></td><td class=\"text\">{}</td></tr>",
            escape(&advised.command),
            escape(advised.does)
        ));
    }
    page.add(format_args!("</table>"));
}

fn meant(page: &mut Page, worth: &Worth) -> Result<(), PlotError> {
    let Worth {
        source,
        unix_s,
        rate_bps,
        load,
        messages,
        bytes,
        acts,
        ..
    } = worth;
    page.add(format_args!("<h2>What it meant for the messages</h2>"));
    let where_from = match source {
        Source::LatestReplay => {
            "The agent replayed the latest messages that it had seen and not learned from"
        }
        Source::Judgement => {
            "Nothing was replayed in this time. These figures are from when the model was accepted: the judge replayed messages \
             that it had not learned from"
        }
    };
    let mood = if *acts {
        ""
    } else {
        " No packet is scheduled so: it is what would have been."
    };
    page.add(format_args!(
        "<p>{where_from} ({messages} messages, {}, at {} UTC) on a link of {} of which {:.0} % is asked for: \
         once as they come, once served by the bytes that each has sent, and once by what was learned. A replay knows the order of \
         service alone and no network behind it, so take it for the direction and not for the millisecond.{mood}</p>",
        human_bytes(*bytes as f64),
        minute(*unix_s),
        format_rate(*rate_bps),
        load * 100.0,
    ));
    let learned = worth.all.learned.is_some();
    let third = if learned {
        ", <span style=\"color:var(--learned)\">■</span> by what was learned"
    } else {
        ""
    };
    page.figure(
        "Mean slowdown by size of the message, under each way of serving",
        &slowdowns(worth)?,
        &format!(
            "How many times longer a message takes than on an idle link, by its size: \
             <span style=\"color:var(--fifo)\">■</span> as it comes, <span style=\"color:var(--aging)\">■</span> by bytes \
             sent{third}. Lower is better; 1 is an idle link, and the scale is logarithmic."
        ),
    );
    page.add(format_args!(
        "<h3>Mean time until a message is complete</h3><div class=\"scroll\"><table><tr><th></th><th>messages</th>\
         <th>as it comes</th><th>by bytes sent</th><th>learned</th><th>before → after</th></tr>"
    ));
    row(page, "all", &worth.all, |it| it.all);
    for (name, figures) in classes(&worth.all.fifo) {
        row(page, &name, &worth.all, figures);
    }
    if !worth.services.is_empty() {
        page.add(format_args!(
            "<tr><th colspan=\"6\">by service (protocol and port)</th></tr>"
        ));
    }
    for service in &worth.services {
        row(page, &service.name, &service.comparison, |it| it.all);
    }
    page.add(format_args!("</table></div>"));
    if worth.services.iter().any(|it| loses(&it.comparison)) {
        page.add(format_args!(
            "<p class=\"note\">Somebody waits where others go first: services that became slower are mostly those that send much \
             at once.</p>"
        ));
    }
    Ok(())
}

fn loses(of: &Comparison) -> bool {
    ratio(&of.fifo.all, &scheduled(of).all) < 1.0 / 1.02
}

fn row(
    page: &mut Page,
    name: &str,
    of: &Comparison,
    figures: impl Fn(&Replay) -> crate::simulate::Figures,
) {
    let [fifo, aging] = [&of.fifo, &of.aging].map(&figures);
    let learned = of.learned.as_ref().map(&figures);
    let gain = ratio(&fifo, &figures(scheduled(of)));
    let (class, told) = if gain >= 1.02 {
        ("good", format!("{gain:.1}× sooner"))
    } else if gain <= 1.0 / 1.02 {
        ("bad", format!("{:.1}× later", 1.0 / gain))
    } else {
        ("note", "the same".to_owned())
    };
    page.add(format_args!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{told}</td></tr>",
        escape(name),
        fifo.messages,
        ms(fifo.mean_fct_ms),
        ms(aging.mean_fct_ms),
        learned.map_or_else(|| "–".to_owned(), |it| ms(it.mean_fct_ms)),
    ));
}

fn words(page: &mut Page) {
    page.add(format_args!(
        "<h2>Words</h2><dl>\
         <dt>message</dt><dd>What somebody waits for: a burst of one side of a connection, until the other side answers or nothing is sent \
         for a while.</dd>\
         <dt>band</dt><dd>One of eight queues. Band 0 goes first; a message begins there and only falls.</dd>\
         <dt>by bytes sent (aging)</dt><dd>The more a message has sent, the lower its band. It needs no learning, and stands beneath every \
         prediction.</dd>\
         <dt>model</dt><dd>A small decision tree that foretells from a packet how much of its message is still to come, so that a long one \
         makes room at once and a short one does not.</dd>\
         <dt>slowdown</dt><dd>The time that a message takes, over the time that it would take on an idle link.</dd>\
         <dt>shadow</dt><dd>Where a new model is asked for every decision and not obeyed, until fresh traffic has shown that it gains.</dd>\
         </dl>\
         <p class=\"note\">Made by <code>treeline report</code>. This page holds ports, sizes and names of interfaces, and no address of anybody.</p>"
    ));
}
