//! What was learned: the models, and the one that acts.

use scheduler_common::features::Feature;

use super::{
    super::{
        Described, Report,
        plots::foretold,
        times::minute,
        words::{office, prefix},
    },
    Page,
};
use crate::{
    journal::decisions::{Decision, Step},
    model::{human_bytes, rules::label},
    page::{PlotError, escape},
};

/// Rows of a table that a person looks through.
const MOST_RULES: usize = 12;
const MOST_FEATURES: usize = 10;
/// Features that weigh less are not worth a line.
const LEAST_SHARE: f64 = 0.005;

pub(super) fn learned(page: &mut Page, report: &Report) -> Result<(), PlotError> {
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
            " The first {} of every message go by bytes sent alone, whatever is foretold.",
            human_bytes(f64::from(bytes))
        ),
    };
    page.add(format_args!(
        "<h3>Where its bands are cut</h3><p>A message goes down a band when the larger of what it has sent and what it is foretold to \
         send passes {}.{first}</p>",
        cuts.join(", "),
    ));
}
