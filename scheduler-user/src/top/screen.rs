//! A view as a screen of 80 by 24 characters, or more.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Clear, Paragraph},
};

use super::{
    state::State,
    view::{Band, Link, View},
};
use crate::{
    dataset::services::Service,
    model::{
        human_bytes,
        rules::{human_time, protocol, service},
    },
    qdisc::format_rate,
};

/// What it takes.
pub(super) const LEAST_COLUMNS: u16 = 80;
pub(super) const LEAST_LINES: u16 = 24;
/// Characters of the bar beside a band's rate.
const BAR: usize = 12;
/// Below a head of 4 lines and the bands.
const LINES_BEFORE_SERVICES: usize = 15;

const HELP: [&str; 17] = [
    "q, Esc, Ctrl-C   quit; the interfaces stay as they are",
    "p, Space         pause, and go on",
    "Tab, arrows      next interface or downlink, and the one before",
    "s                sort services: by bytes, by messages, by factor",
    "?                this help, and back",
    "",
    "rate, dropped    of the time since the last reading",
    "delay            an estimate: what waits, over what the band sent a",
    "                 second since the last reading; `stands` where it sent",
    "                 nothing and something waits",
    "predicted, real  medians of the sizes of the same messages: at their",
    "                 first prediction, and as they turned out; of 5 or more",
    "factor           half of the predictions are off by no more than that",
    "gain             over aging, in mean slowdown and completion time, when",
    "                 the model was judged",
    "cost             as the kernel measures it while this is open; a packet",
    "                 of many segments is one",
];

/// Draws.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, state: &State) {
    let area = frame.area();
    if area.width < LEAST_COLUMNS || area.height < LEAST_LINES {
        let told = format!(
            "treeline top needs {LEAST_COLUMNS} columns and {LEAST_LINES} lines; this terminal has {} and {}. q quits.",
            area.width, area.height
        );
        let whole = ratatui::widgets::Wrap { trim: true };
        frame.render_widget(Paragraph::new(told).wrap(whole), area);
        return;
    }
    let mut lines = head(view, state);
    match view.links.get(state.link).or_else(|| view.links.first()) {
        Some(link) => lines.extend(link_lines(link, view.links.len(), state)),
        None => lines.push(Line::from(
            "no interface is up; `treeline up IFACE --rate RATE` brings one up",
        )),
    }
    lines.resize(LINES_BEFORE_SERVICES, Line::default());
    let room = usize::from(area.height) - LINES_BEFORE_SERVICES - 2;
    lines.extend(services(view, state, room));
    lines.resize(usize::from(area.height) - 1, Line::default());
    lines.push(Line::styled(
        " q quit   p pause   Tab next interface   s sort services   ? help",
        Style::new().add_modifier(Modifier::REVERSED),
    ));
    frame.render_widget(Paragraph::new(lines), area);
    if state.shows_help {
        help(frame, area);
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let height = HELP.len() as u16 + 2;
    let place = Rect {
        x: 2,
        y: 2,
        width: area.width - 4,
        height,
    };
    frame.render_widget(Clear, place);
    let block = ratatui::widgets::Block::bordered().title(" help ");
    let text = HELP.map(Line::from).to_vec();
    frame.render_widget(Paragraph::new(text).block(block), place);
}

fn bold(text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), Style::new().add_modifier(Modifier::BOLD))
}

/// What holds for all interfaces.
fn head(view: &View, state: &State) -> Vec<Line<'static>> {
    let agent = match view.agent {
        Some(pid) => format!("agent pid {pid}"),
        None => "no agent: bands and counters only".to_owned(),
    };
    let over = match (state.is_paused, view.over_ms) {
        (true, _) => "PAUSED".to_owned(),
        (false, Some(over_ms)) => format!("over {:.1} s", over_ms as f64 / 1000.0),
        (false, None) => "first reading".to_owned(),
    };
    let mut model = match &view.model {
        Some(model) => {
            let gain = model.gain.map_or_else(
                || "no gain known".to_owned(),
                |gain| {
                    format!(
                        "gain {:+.1} ± {:.1} % over aging",
                        gain.percent, gain.error_percent
                    )
                },
            );
            format!("generation {}, {gain}", model.generation)
        }
        None => "none: bytes already sent decide (aging)".to_owned(),
    };
    if let Some(shadow) = view.shadow {
        model.push_str(&format!("; {shadow} in the shadow"));
    }
    if view.observes_only {
        model.push_str("; nothing is acted on");
    }
    let samples = match &view.services {
        Some(services) => format!(
            "1 flow in {}, {}/s, {}/s lost; {} labelled rows of the last {}",
            services.sample_one_in,
            number(view.samples_per_s),
            number(view.samples_lost_per_s),
            services.rows,
            human_time(services.window_ms as f64 * 1000.0)
        ),
        None => "none without an agent".to_owned(),
    };
    vec![
        Line::from(vec![
            bold("treeline top"),
            Span::from(format!("  {over}  {}, {agent}", view.instance)),
        ]),
        Line::from(vec![bold("model   "), Span::from(model)]),
        Line::from(vec![bold("samples "), Span::from(samples)]),
        Line::from(vec![bold("cost    "), Span::from(cost(view))]),
    ]
}

fn cost(view: &View) -> String {
    let Some(programs) = &view.programs else {
        return "not known: only root may have the kernel measure it".to_owned();
    };
    let of = programs.iter().enumerate().map(|(place, cost)| {
        let time = cost
            .ns_per_run
            .map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0} ns"));
        let share = cost
            .core_share
            .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        // Once is enough to say what they are of.
        let (packet, core) = match place {
            0 => (" a packet", " of a core"),
            _ => ("", ""),
        };
        format!("{} {time}{packet}, {share}{core}", cost.hook)
    });
    let told: Vec<String> = of.collect();
    if told.is_empty() {
        return "no programs are loaded".to_owned();
    }
    told.join(";  ")
}

fn link_lines(link: &Link, links: usize, state: &State) -> Vec<Line<'static>> {
    let served = match link.shaped_bps {
        Some(bps) => format!("{}, leaf {}", format_rate(bps), link.leaf),
        None => match link.root.kind() {
            Some(kind) => format!("{kind}, leaf {}", link.leaf),
            None => format!("its own {}", link.leaf),
        },
    };
    let place = state.link.min(links - 1) + 1;
    let mut title = format!(
        "  {} {place}/{links}: {served}, sends {}",
        link.direction,
        rate(link.rate_bps)
    );
    if !link.present {
        title.push_str("; the interface is gone, `treeline down` clears it");
    }
    let mut lines = vec![
        Line::from(vec![bold(link.name.clone()), Span::from(title)]),
        header(format!(
            "{:<5}{:>12}  {:<BAR$}{:>11}{:>18}{:>10}{:>10}",
            "band", "rate", "", "packets/s", "waiting", "dropped/s", "delay"
        )),
    ];
    if link.bands.is_empty() {
        lines.push(Line::from(
            "this qdisc does not tell bands apart, so there is nothing to show of them",
        ));
    }
    let most = link.bands.iter().filter_map(|band| band.rate_bps);
    let most = most.fold(0.0, f64::max);
    lines.extend(link.bands.iter().map(|band| band_line(band, most)));
    lines
}

fn header(text: String) -> Line<'static> {
    Line::styled(text, Style::new().add_modifier(Modifier::UNDERLINED))
}

fn band_line(band: &Band, most_bps: f64) -> Line<'static> {
    let share = band.rate_bps.filter(|_| most_bps > 0.0);
    let filled = share.map_or(0.0, |bps| bps / most_bps * BAR as f64).ceil() as usize;
    let waiting = match band.backlog_packets {
        0 => "-".to_owned(),
        packets => format!("{}, {packets} p", human_bytes(band.backlog_bytes as f64)),
    };
    let delay = match (band.delay_us, band.rate_bps) {
        (Some(us), _) if us > 0.0 => format!("~{}", human_time(us)),
        (Some(_), _) | (None, None) => "-".to_owned(),
        (None, Some(_)) => "stands".to_owned(),
    };
    let drops = Style::new().fg(if band.drops_per_s > Some(0.0) {
        Color::Red
    } else {
        Color::Reset
    });
    Line::from(vec![
        Span::from(format!("{:<5}{:>12}  ", band.band, rate(band.rate_bps))),
        Span::styled(
            format!("{:<BAR$}", "#".repeat(filled.min(BAR))),
            Style::new().fg(Color::Green),
        ),
        Span::from(format!("{:>11}{waiting:>18}", number(band.packets_per_s))),
        Span::styled(format!("{:>10}", number(band.drops_per_s)), drops),
        Span::from(format!("{delay:>10}")),
    ])
}

fn services(view: &View, state: &State, room: usize) -> Vec<Line<'static>> {
    let mut lines = vec![header(format!(
        "{:<22}{:>9}{:>10}{:>10}{:>11}{:>10}{:>8}",
        format!("service by {}", state.order.name()),
        "messages",
        "bytes",
        "median",
        "predicted",
        "real",
        "factor"
    ))];
    let Some(services) = &view.services else {
        lines.push(Line::from(
            "services are what an agent knows; `treeline run` starts one",
        ));
        return lines;
    };
    if services.services.is_empty() {
        lines.push(Line::from("no message has been labelled yet"));
    }
    let mut services = services.services.clone();
    state.order.sort(&mut services);
    lines.extend(services.iter().take(room).map(service_line));
    lines
}

fn service_line(of: &Service) -> Line<'static> {
    let name = match of.port {
        Some(port) => format!("{} {}", protocol(of.protocol), service(port)),
        None => format!("{} high ports", protocol(of.protocol)),
    };
    let name: String = name.chars().take(21).collect();
    let told = of.told();
    let dash = || "-".to_owned();
    let predicted = told.map_or_else(dash, |it| human_bytes(it.predicted_median_bytes as f64));
    let real = told.map_or_else(dash, |it| human_bytes(it.real_median_bytes as f64));
    let factor = told.map_or_else(dash, |it| format!("{:.1}", it.median_factor));
    Line::from(format!(
        "{name:<22}{:>9}{:>10}{:>10}{predicted:>11}{real:>10}{factor:>8}",
        of.messages,
        human_bytes(of.bytes as f64),
        human_bytes(of.median_bytes as f64)
    ))
}

/// Bits a second.
fn rate(bps: Option<f64>) -> String {
    let Some(bps) = bps else {
        return "-".to_owned();
    };
    let (value, unit) = match bps {
        _ if bps < 999.5 => (bps, "bit/s"),
        _ if bps < 999_500.0 => (bps / 1e3, "kbit/s"),
        _ if bps < 999_500_000.0 => (bps / 1e6, "Mbit/s"),
        _ => (bps / 1e9, "Gbit/s"),
    };
    let decimals = usize::from(value < 99.95 && unit != "bit/s");
    format!("{value:.decimals$} {unit}")
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}
