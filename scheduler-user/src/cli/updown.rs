//! `treeline up` and `treeline down`.

use anyhow::Context as _;
use serde::Serialize;

use super::{Format, Leaf, UplinkArgs, print, print_json, runtime};
use crate::{
    acts,
    config::nearest,
    instance::Instance,
    journal,
    qdisc::{RootChoice, format_rate},
    uplink::{self, Came, Wanted, Went},
};

/// What the two verbs print as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    schema: u32,
    interface: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
}

impl<'a> Outcome<'a> {
    const fn new(interface: &'a str, outcome: &'a str) -> Self {
        Self {
            schema: crate::status::SCHEMA,
            interface,
            outcome,
            model_generation: None,
            leaf: None,
        }
    }
}

pub(super) fn up(
    instance: &Instance,
    format: Format,
    interface: &str,
    how: &UplinkArgs,
) -> anyhow::Result<()> {
    journal::start("warn", None);
    let (came, generation) = runtime()?.block_on(bring_up(instance, interface, how))?;
    let leaf = leaf_of(instance, interface)?;
    let wanted = how.wanted();
    let mut place = match wanted.rate_bps {
        Some(rate) => format!("at {}", format_rate(rate)),
        None => mapped(interface, &wanted)?,
    };
    if let Some(rate) = wanted.ingress.rate_bps {
        place.push_str(&format!(" out and {} in", format_rate(rate)));
    }
    let (word, text) = match came {
        Came::Up => ("up", format!("{interface} is up {place}")),
        Came::AlreadyUp => ("already-up", format!("{interface} is already up {place}")),
        Came::Changed => ("changed", format!("{interface} was up and is now {place}")),
    };
    match format {
        Format::Json => print_json(&Outcome {
            model_generation: generation,
            leaf: Some(leaf),
            ..Outcome::new(interface, word)
        }),
        Format::Text => {
            let has_leaves = !matches!(wanted.root, RootChoice::Keep | RootChoice::Fq);
            let lacks = if has_leaves && how.leaf == Leaf::Auto && leaf != "fq_codel" {
                " (this kernel lacks fq_codel)"
            } else {
                ""
            };
            let ruler = match generation {
                Some(generation) => format!("model {generation}"),
                None => "aging".to_owned(),
            };
            let leaf = if has_leaves {
                format!(", leaf {leaf}{lacks}")
            } else {
                String::new()
            };
            print(&format!(
                "{text}, scheduled by {ruler}{leaf}; undo with `treeline down {interface}`"
            ));
            Ok(())
        }
    }
}

/// How the bands are told to a root that does not shape.
fn mapped(interface: &str, wanted: &Wanted) -> anyhow::Result<String> {
    let ifindex = uplink::index_of(interface)?;
    let mapping = runtime()?.block_on(acts::mapping_on(interface, ifindex, &wanted.acts))?;
    Ok(match mapping.priorities {
        Some(_) => format!("on {}", mapping.described),
        None => format!("without priorities ({})", mapping.described),
    })
}

/// Queue of the bands on an interface that has just come up.
fn leaf_of(instance: &Instance, interface: &str) -> anyhow::Result<String> {
    let records = instance.records()?;
    let record = records.into_iter().find(|record| record.name == interface);
    Ok(record
        .context("the interface was taken down meanwhile")?
        .leaf)
}

async fn bring_up(
    instance: &Instance,
    interface: &str,
    how: &UplinkArgs,
) -> anyhow::Result<(Came, Option<u32>)> {
    let (datapath, _origin, came) = uplink::up(instance, interface, &how.wanted()).await?;
    if let Err(error) = uplink::choose_model(instance, &datapath, &how.model) {
        if came == Came::Up {
            uplink::down(instance, interface).await?;
        }
        return Err(error.into());
    }
    Ok((came, datapath.active()?.map(|active| active.generation)))
}

pub(super) fn down(
    instance: &Instance,
    format: Format,
    interface: Option<&str>,
) -> anyhow::Result<()> {
    journal::start("warn", None);
    let all = runtime()?.block_on(async {
        match interface {
            Some(name) => uplink::down(instance, name)
                .await
                .map(|went| vec![(name.to_owned(), went)]),
            None => uplink::down_all(instance).await,
        }
    })?;
    let described: Vec<_> = all
        .iter()
        .map(|(name, went)| describe(name, went))
        .collect();
    match format {
        Format::Json => {
            let outcomes: Vec<_> = described
                .iter()
                .zip(&all)
                .map(|((word, _), (name, _))| Outcome::new(name, word))
                .collect();
            print_json(&outcomes)
        }
        Format::Text => {
            if described.is_empty() {
                print("no interface was up; nothing to do");
            }
            for (_, text) in &described {
                print(text);
            }
            if let (Some(name), [(_, Went::NotUp)]) = (interface, all.as_slice()) {
                let up: Vec<String> = instance.records()?.into_iter().map(|it| it.name).collect();
                if let Some(meant) = nearest(name, up.iter().map(String::as_str)) {
                    print(&format!("{meant} is up: did you mean {meant}?"));
                }
            }
            Ok(())
        }
    }
}

fn describe(name: &str, went: &Went) -> (&'static str, String) {
    match went {
        Went::Down => (
            "down",
            format!("{name} is down, everything is as it was before"),
        ),
        Went::NotUp => ("not-up", format!("{name} is not up; nothing to do")),
        Went::QdiscLeftAlone { kind } => (
            "down",
            format!("{name} is down; its root qdisc {kind} was set by somebody else and stays"),
        ),
    }
}
