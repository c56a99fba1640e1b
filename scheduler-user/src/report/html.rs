//! The report as one page.

use std::fmt::Write as _;

use super::{
    Described, Report, Source, Worth,
    plots::{foretold, slowdowns, traffic},
    times::minute,
    words::{is_empty, ms, office, prefix},
    worth::{classes, ratio, scheduled},
};
use crate::{
    advice::Comparison,
    journal::decisions::{Actor, Decision, Step},
    model::{human_bytes, rules::label},
    page::{PlotError, STYLE, escape},
    qdisc::{BandStats, format_rate},
    simulate::Replay,
    status::{Interface, Status, served},
};
use scheduler_common::{counter::Counter, features::Feature, ingress::IngressCounter};

/// Rows of a table that a person looks through.
const MOST_RULES: usize = 12;
const MOST_DECISIONS: usize = 40;
const MOST_FEATURES: usize = 10;
/// Features that weigh less are not worth a line.
const LEAST_SHARE: f64 = 0.005;

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
        learned(&mut page, report)?;
        changed(&mut page, report);
        now(&mut page, report)?;
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

fn learned(page: &mut Page, report: &Report) -> Result<(), PlotError> {
    page.add(format_args!("<h2>What was learned</h2>"));
    let steps = &report.steps;
    if steps.trained > 0 {
        page.add(format_args!(
            "<p>{} candidates were trained in this time: {} refused by the judge, {} watched in the shadow, where a model is asked and \
             not obeyed, {} dropped from there, {} put to work, {} taken out again.</p>",
            steps.trained, steps.refused, steps.shadowed, steps.dropped, steps.promoted, steps.fell_back
        ));
    } else {
        page.add(format_args!("<p>No model was trained in this time.</p>"));
    }
    if let Some(why) = last_refusal(&report.decisions) {
        page.add(format_args!(
            "<p class=\"note\">The latest refusal: {}.</p>",
            escape(why)
        ));
    }
    models(page, report);
    let Some(model) = &report.model else {
        page.add(format_args!(
            "<p>There is no model. That is no fault: without one a message goes down band by band as it sends, which needs no learning \
             and is good for short messages.</p>"
        ));
        return Ok(());
    };
    one_model(page, report, model)
}

fn last_refusal(decisions: &[Decision]) -> Option<&str> {
    let refused = |it: &&Decision| matches!(it.step, Step::Refused { .. });
    Some(decisions.iter().rev().find(refused)?.why.as_str())
}

fn models(page: &mut Page, report: &Report) {
    if report.models.is_empty() {
        return;
    }
    page.add(format_args!(
        "<div class=\"scroll\"><table><tr><th>model</th><th>learned, UTC</th><th>from samples</th><th>completion time against bytes \
         sent alone</th><th class=\"text\">what became of it</th></tr>"
    ));
    for model in &report.models {
        let change = model.change_to_aging.map_or_else(
            || "not judged".to_owned(),
            |change| format!("{:+.0} %", change * 100.0),
        );
        let became = if model.acts {
            office(report)
        } else {
            model.became.unwrap_or("–")
        };
        page.add(format_args!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{change}</td><td class=\"text\">{became}</td></tr>",
            model.generation,
            minute(model.created_unix_s),
            model.trained_on_samples
        ));
    }
    page.add(format_args!("</table></div>"));
}

fn one_model(page: &mut Page, report: &Report, model: &Described) -> Result<(), PlotError> {
    let summary = &model.summary;
    let role = if model.acts {
        office(report)
    } else {
        "the newest, not in charge"
    };
    page.add(format_args!(
        "<h3>Model {}, {role}</h3><p>{} of {} nodes, at most {} questions deep, learned from {} samples of {} services in {} ms.</p>",
        summary.generation,
        if summary.trees == 1 { "One tree".to_owned() } else { format!("{} trees", summary.trees) },
        summary.nodes,
        summary.depth,
        summary.trained_on_samples,
        model.services,
        summary.train_ms,
    ));
    importances(page, model);
    rules(page, (&prefix(&report.instance), model));
    cuts(page, model);
    let Some(scores) = &model.scores else {
        page.add(format_args!(
            "<p class=\"note\">This model was never judged here: it came from a file.</p>"
        ));
        return Ok(());
    };
    let candidate = &scores.candidate;
    if !candidate.calibration.buckets.is_empty() {
        page.figure(
            "Foretold bytes to come against those that came",
            &foretold(&candidate.calibration.buckets)?,
            &format!(
                "What the model foretold, and what came, on {} samples that it had not learned from. Circles on the line are right on \
                 average, their area says how many samples they stand for. A single guess is off by a factor of {:.1} (one standard \
                 error); to know only how much a message has sent gives {:.1}.",
                candidate.all.rows,
                candidate.all.rmse_log2.exp2(),
                scores.bytes_so_far.all.rmse_log2.exp2()
            ),
        );
    }
    Ok(())
}

fn importances(page: &mut Page, model: &Described) {
    if model.importances.is_empty() {
        return;
    }
    page.add(format_args!(
        "<h3>What it looks at</h3><table><tr><th>property of the packet</th><th></th><th>weight</th></tr>"
    ));
    let named = |name: &str| {
        let feature = Feature::ALL.iter().find(|feature| feature.name() == name);
        feature.map_or("unknown", |feature| label(*feature))
    };
    let heavy = (model.importances.iter()).filter(|it| it.share >= LEAST_SHARE);
    for it in heavy.take(MOST_FEATURES) {
        let percent = it.share * 100.0;
        page.add(format_args!(
            "<tr><td>{}</td><td class=\"meter\"><span class=\"bar\" style=\"width:{percent:.1}%\"></span></td><td>{percent:.0} %</td></tr>",
            escape(named(it.feature))
        ));
    }
    page.add(format_args!("</table>"));
}

fn rules(page: &mut Page, (treeline, model): (&str, &Described)) {
    page.add(format_args!(
        "<h3>Its rules in words</h3><div class=\"scroll\"><table><tr><th>a packet of a message with</th><th>means still to come</th>\
         <th>give or take</th><th>band</th><th>samples</th></tr>"
    ));
    for rule in model.rules.iter().take(MOST_RULES) {
        page.add(format_args!(
            "<tr><td class=\"wide\">{}</td><td>{}</td><td>×{:.1}</td><td>{}</td><td>{}</td></tr>",
            escape(&rule.text),
            rule.bytes_to_come
                .map_or_else(|| "part of a sum".to_owned(), human_bytes),
            rule.factor,
            rule.band
                .map_or_else(|| "–".to_owned(), |it| it.to_string()),
            rule.rows
        ));
    }
    page.add(format_args!("</table></div>"));
    let more = model.rules.len().saturating_sub(MOST_RULES);
    if more > 0 {
        page.add(format_args!(
            "<p class=\"note\">{more} more rules, which fewer samples met: <code>{treeline}model show {} --rules</code></p>",
            model.summary.generation
        ));
    }
}

fn cuts(page: &mut Page, model: &Described) {
    let cuts = model
        .thresholds
        .cuts_bytes
        .map(|cut| human_bytes(f64::from(cut)));
    let first = match model.thresholds.first_bytes {
        0 => String::new(),
        bytes => format!(
            " The first {} of every message go on top, whatever is foretold.",
            human_bytes(f64::from(bytes))
        ),
    };
    page.add(format_args!(
        "<h3>Where its bands are cut</h3><p>A message goes down a band when the larger of what it has sent and what it is foretold to \
         send passes {}.{first}</p>",
        cuts.join(", "),
    ));
}

fn changed(page: &mut Page, report: &Report) {
    page.add(format_args!("<h2>What it changed, and how to undo it</h2>"));
    let told: Vec<&Decision> = (report.decisions.iter().rev())
        .filter(|it| !matches!(it.step, Step::Trained { .. } | Step::Refused { .. }))
        .collect();
    if told.is_empty() {
        page.add(format_args!("<p>Nothing was changed in this time.</p>"));
        return;
    }
    page.add(format_args!(
        "<div class=\"scroll\"><table><tr><th>when, UTC</th><th class=\"text\">by</th><th class=\"text\">what, why, and the command that \
         undoes it</th></tr>"
    ));
    for decision in told.iter().take(MOST_DECISIONS) {
        let by = match decision.by {
            Actor::Agent => "agent",
            Actor::Command => "a person",
        };
        let undo = decision.undo.as_ref().map_or_else(String::new, |undo| {
            format!("<br><code>{}</code>", escape(undo))
        });
        page.add(format_args!(
            "<tr><td class=\"when\">{}</td><td class=\"text\">{by}</td><td class=\"text wide\"><b>{}</b>: {}<br><span class=\"note\">\
             {}</span>{undo}</td></tr>",
            minute(decision.unix_ms / 1000),
            decision.step.name(),
            escape(&decision.step.to_string()),
            escape(&decision.why),
        ));
    }
    page.add(format_args!("</table></div>"));
    let more = told.len().saturating_sub(MOST_DECISIONS);
    if more > 0 {
        page.add(format_args!(
            "<p class=\"note\">{more} earlier ones: <code>{}model log -n {}</code></p>",
            prefix(&report.instance),
            report.decisions.len()
        ));
    }
}

fn now(page: &mut Page, report: &Report) -> Result<(), PlotError> {
    page.add(format_args!("<h2>What stands now</h2>"));
    let Some(status) = &report.now else {
        page.add(format_args!(
            "<p>The kernel could not be asked: {}. As root this part says what each band has carried.</p>",
            escape(report.now_unknown.as_deref().unwrap_or("nothing is known"))
        ));
        return Ok(());
    };
    if status.interfaces.is_empty() {
        page.add(format_args!(
            "<p>No interface is scheduled now, so there are no counters to show.</p>"
        ));
    }
    for interface in &status.interfaces {
        one_interface(page, interface)?;
    }
    counters(page, status);
    Ok(())
}

fn one_interface(page: &mut Page, interface: &Interface) -> Result<(), PlotError> {
    let served = served(interface.root, interface.rate_bps, &interface.leaf);
    let name = &interface.name;
    page.add(format_args!(
        "<h3>{}: {}</h3>",
        escape(name),
        escape(&served)
    ));
    band_picture(page, name, &interface.bands)?;
    if let Some(downlink) = &interface.downlink {
        page.add(format_args!(
            "<h3>The way in of {}: {}</h3>",
            escape(name),
            format_rate(downlink.rate_bps)
        ));
        band_picture(page, &downlink.device, &downlink.bands)?;
    }
    Ok(())
}

fn band_picture(page: &mut Page, name: &str, bands: &[BandStats]) -> Result<(), PlotError> {
    let [packets, bytes, drops] = [
        bands.iter().map(|it| it.packets).sum::<u64>(),
        bands.iter().map(|it| it.bytes).sum(),
        bands.iter().map(|it| it.drops).sum(),
    ];
    if packets == 0 {
        page.add(format_args!(
            "<p class=\"note\">No band of its own has carried a packet yet; where the queue is not treeline's, it is not counted by band.</p>"
        ));
        return Ok(());
    }
    page.figure(
        &format!("Share of bytes and packets by band on {name}"),
        &traffic(bands)?,
        &format!(
            "What each band has carried since the queue was made, in percent: <span style=\"color:var(--oracle)\">■</span> of {}, \
             <span style=\"color:var(--aging)\">■</span> of {packets} packets. Band 0 goes first. {drops} packets were dropped because a \
             queue was full.",
            human_bytes(bytes as f64)
        ),
    );
    Ok(())
}

fn counters(page: &mut Page, status: &Status) {
    let help = |name: &str| {
        let own = Counter::ALL.iter().find(|it| it.name() == name);
        let ingress = IngressCounter::ALL.iter().find(|it| it.name() == name);
        own.map(|it| it.help())
            .or_else(|| ingress.map(|it| it.help()))
    };
    let seen = status.counters.iter().filter(|(_, value)| **value > 0);
    let seen: Vec<_> = seen.collect();
    if seen.is_empty() {
        return;
    }
    page.add(format_args!(
        "<h3>What the kernel programs counted since they were loaded</h3><div class=\"scroll\"><table><tr><th>what</th><th>times</th></tr>"
    ));
    for (name, value) in seen {
        page.add(format_args!(
            "<tr><td class=\"wide\">{} <code>{name}</code></td><td>{value}</td></tr>",
            escape(help(name).unwrap_or_default().trim())
        ));
    }
    page.add(format_args!("</table></div>"));
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
