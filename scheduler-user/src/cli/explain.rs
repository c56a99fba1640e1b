//! `treeline explain`.

use anyhow::bail;
use clap::Args;
use scheduler_common::features::Feature;

use super::{Format, print, print_json, runtime};
use crate::{
    control::client::{Client, ClientError, in_query},
    explain::{Direction, Explanation, FlowSpec, Question, Source, TreePath, Walk, explain, given},
    instance::Instance,
    model::{
        human_bytes,
        rules::{human_time, service},
    },
};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Protocol and both ends, or a line of `ss -tn` or `conntrack -L`; the direction does not matter.
    #[arg(required = true, value_name = "FLOW")]
    flow: Vec<String>,
    /// Interface to look on [default: all that are up].
    #[arg(long, value_name = "IFACE")]
    dev: Option<String>,
    /// Features at the decision that you know better: packet_bytes=1448,segments=1.
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = parse_given)]
    features: Vec<(Feature, u32)>,
}

fn parse_given(text: &str) -> Result<(Feature, u32), String> {
    given(text).map_err(|error| error.to_string())
}

pub(super) fn run(instance: &Instance, format: Format, args: &ExplainArgs) -> anyhow::Result<()> {
    let question = Question {
        flow: FlowSpec::parse(&args.flow.join(" "))?,
        interface: args.dev.clone(),
        given: args.features.clone(),
    };
    let explanation = match super::exit::require_root() {
        Ok(()) => explain(instance, &question)?,
        // The table is root's; the agent reads it for whom it lets in.
        Err(needs_root) => runtime()?
            .block_on(told_by_agent(instance, args))?
            .ok_or(needs_root)?,
    };
    match format {
        Format::Json => print_json(&explanation),
        Format::Text => {
            print(&text(&explanation));
            Ok(())
        }
    }
}

/// What the agent says; `None` where nobody answers this user.
async fn told_by_agent(
    instance: &Instance,
    args: &ExplainArgs,
) -> anyhow::Result<Option<Explanation>> {
    let ExplainArgs {
        flow,
        dev,
        features,
    } = args;
    let Some(agent) = Client::connect(instance).await else {
        return Ok(None);
    };
    let mut path = format!("/v1/explain?flow={}", in_query(&flow.join(" ")));
    if let Some(dev) = dev {
        path.push_str(&format!("&dev={}", in_query(dev)));
    }
    let given: Vec<String> = features
        .iter()
        .map(|(feature, value)| format!("{}={value}", feature.name()))
        .collect();
    if !given.is_empty() {
        path.push_str(&format!("&features={}", in_query(&given.join(","))));
    }
    match agent.get(&path).await {
        // That it knows no such flow is no matter of a model, as which it would end.
        Err(ClientError::Refused(problem)) => bail!(problem.detail),
        answer => Ok(Some(answer?)),
    }
}

fn text(explanation: &Explanation) -> String {
    let Explanation {
        flow,
        interface,
        service_port,
        service_known,
        rtt_us,
        age_us,
        acting,
        ..
    } = explanation;
    let by = if *service_known {
        "by the handshake"
    } else {
        "a guess: the lower port"
    };
    let rtt = rtt_us.map_or_else(
        || "not seen".to_owned(),
        |rtt_us| human_time(f64::from(rtt_us)),
    );
    let mut lines = vec![
        format!("{flow} on {interface}"),
        format!(
            "service  {} ({by}), handshake {rtt}, age {}",
            service(u32::from(*service_port)),
            human_time(*age_us as f64)
        ),
        match acting {
            Some(generation) => format!("model    generation {generation} acts"),
            None => "model    none: bytes already sent decide (aging)".to_owned(),
        },
    ];
    for direction in &explanation.directions {
        lines.push(String::new());
        lines.extend(direction_lines(direction));
    }
    lines.join("\n")
}

fn direction_lines(direction: &Direction) -> Vec<String> {
    let Direction {
        from,
        to,
        from_service,
        message,
        open,
        bytes,
        packets,
        idle_us,
        previous_bytes,
        verdict,
        ..
    } = direction;
    let sender = if *from_service { "service" } else { "client" };
    let mut lines = vec![format!("{from} → {to} (sent by the {sender})")];
    if *message == 0 {
        lines.push("  no payload yet: what it sends goes in band 0".to_owned());
        return lines;
    }
    let state = if *open {
        "under way"
    } else {
        "ended; the next one begins in band 0"
    };
    lines.push(format!(
        "  message {message}, {state}: {} in {packets} packets, silent for {}; the one before had {}",
        human_bytes(f64::from(*bytes)),
        human_time(f64::from(*idle_us)),
        human_bytes(f64::from(*previous_bytes))
    ));
    lines.push(format!("  prediction: {}", prediction(direction)));
    lines.push(format!("  band {}: {}", verdict.band, verdict.why));
    lines.push(format!("    not sooner: {}", verdict.why_not_sooner));
    lines.push(format!("    not later: {}", verdict.why_not_later));
    if let Some(walk) = &direction.walk {
        lines.extend(walk_lines(walk, direction.judged));
    }
    lines
}

fn prediction(direction: &Direction) -> String {
    match (direction.predicted_bytes, direction.judged_by) {
        (Some(bytes), Some(generation)) => format!(
            "{} by generation {generation}, at its latest decision point",
            human_bytes(f64::from(bytes))
        ),
        (Some(bytes), None) => format!(
            "{} by an earlier model than the one that acts now",
            human_bytes(f64::from(bytes))
        ),
        (None, _) if direction.verdict.first_bytes => {
            "none is asked for among the first bytes".to_owned()
        }
        (None, _) => {
            "none (it comes in, or no model acted at its latest decision point)".to_owned()
        }
    }
}

fn walk_lines(walk: &Walk, judged: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let would = if judged { "" } else { " would" };
    lines.push(format!(
        "  path through generation {}, which{would} give{} {} to come",
        walk.generation,
        if judged { "s" } else { "" },
        human_bytes(walk.bytes_to_come as f64)
    ));
    for tree in &walk.trees {
        if walk.trees.len() > 1 {
            lines.push(format!("    tree {}", tree.tree));
        }
        lines.extend(path_lines(tree));
    }
    lines.push(
        "    (~ grows with the message, ? not kept by the kernel and assumed, ! given)".to_owned(),
    );
    match (walk.agrees, walk.fitting.as_slice()) {
        (Some(_), [only]) => {
            let conditions: Vec<String> = only
                .conditions
                .iter()
                .map(ToString::to_string)
                .collect();
            lines.push(format!(
                "  one leaf alone fits what the kernel predicted, {} into the message: {}",
                human_bytes(only.bytes_at_decision as f64),
                conditions.join(", ")
            ));
        }
        (Some(true), []) => lines.push("  this fits what the kernel predicted".to_owned()),
        (Some(true), fitting) => lines.push(format!(
            "  {} leaves fit what the kernel predicted, this one among them; --features narrows them down",
            fitting.len()
        )),
        (Some(false), []) => lines.push(
            "  this is not what the kernel predicted: values that it does not keep were others; --features sets them"
                .to_owned(),
        ),
        (Some(false), fitting) => lines.push(format!(
            "  this is not what the kernel predicted; {} leaves fit it, --features narrows them down",
            fitting.len()
        )),
        (None, _) => {}
    }
    lines
}

fn path_lines(tree: &TreePath) -> Vec<String> {
    let mut lines: Vec<String> = tree
        .turns
        .iter()
        .map(|asked| {
            let mark = match asked.source {
                Source::Known => ' ',
                Source::Grown => '~',
                Source::Assumed => '?',
                Source::Given => '!',
            };
            format!(
                "    {mark} {} ({} = {})",
                asked.text, asked.feature, asked.value
            )
        })
        .collect();
    lines.push(format!(
        "      → {} to come, within a factor {:.1}; {} rows",
        tree.text, tree.factor, tree.rows
    ));
    lines
}
