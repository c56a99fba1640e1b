//! The command line: what can be typed, and what each verb does.

mod acts;
mod bench;
mod config;
mod doctor;
mod exit;
mod explain;
pub(crate) mod grammar;
mod ingress;
mod logs;
mod manual;
mod model;
mod observe;
mod paint;
mod plan;
mod progress;
mod record;
mod reload;
mod replay;
mod report;
mod run;
mod status;
mod supervisor;
mod top;
mod train;
mod updown;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use scheduler_common::flow::{DEFAULT_ENTRIES, MAX_ENTRIES};

use self::acts::ActArgs;
pub use self::exit::Exit;
use self::grammar::{period as parse_period, rate as parse_rate};
use self::{
    bench::BenchArgs, config::ConfigVerb, doctor::DoctorArgs, explain::ExplainArgs,
    ingress::IngressArgs, logs::LogsArgs, manual::ManualArgs, model::ModelVerb, record::RecordArgs,
    replay::ReplayArgs, report::ReportArgs, top::TopArgs, train::TrainArgs,
};
use crate::{
    acts::Acts,
    config::nearest,
    control::{self, Group, Mode, client::Client},
    datapath::{EgressChoice, Order},
    ingress::Ingress,
    instance::Instance,
    qdisc::{LeafChoice, RootChoice},
    record::DEFAULT_MAX_ROWS,
    uplink::{ModelChoice, Wanted},
};

/// A learned packet scheduler: short and urgent traffic first, learned from the host's own flows.
///
/// treeline attaches to an interface, shapes it to a rate just below the link's, and serves what is
/// likely to finish soon before bulk. It learns from the traffic itself; until a model has
/// proved itself, bytes already sent decide.
#[derive(Debug, Parser)]
#[command(
    name = "treeline",
    version,
    after_help = "Examples:\n  treeline run eth0 --rate 95mbit     learn and schedule on eth0\n  \
                  treeline status                     what runs, and what it did\n  \
                  treeline down eth0                  undo everything\n\nExit codes:\n  \
                  0 done\n  1 failed\n  2 wrong usage or configuration\n  3 needs root\n  4 no such interface\n  \
                  5 an administrator's qdisc is in the way\n  6 a model can't be used\n  \
                  7 another agent is running"
)]
pub struct Cli {
    /// Set of programs, maps and models to work on; one host needs one.
    #[arg(
        long,
        global = true,
        default_value = "default",
        env = "TREELINE_INSTANCE",
        hide_env_values = true
    )]
    instance: String,

    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    format: Format,

    #[command(subcommand)]
    verb: Verb,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs, with a schema number.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring interfaces up and learn from their traffic, in the foreground.
    ///
    /// Ends on SIGINT or SIGTERM. The programs stay attached and schedule on with the last good model;
    /// `treeline down` removes them.
    #[command(after_help = "Examples:\n  treeline run eth0 --rate 95mbit\n  \
                      treeline run                                 what /etc/treeline/config.toml says\n  \
                      treeline run eth0 --observe --rate 95mbit --for 1h   only say what that would be worth")]
    Run(Box<RunArgs>),
    /// Bring an interface up without an agent: scheduling, no learning.
    #[command(
        after_help = "Examples:\n  treeline up eth0 --rate 95mbit --model none   shape to 95 Mbit/s\n  \
                      treeline up wan0 --rate 38mbit --ingress-rate 95mbit   the downlink, too\n  \
                      treeline up eth0 --rate 95mbit --dry-run      what that would do, as commands of ip and tc\n  \
                      treeline up eth0                              use the queue that eth0 has\n  \
                      treeline up eth0 --qdisc fq --pace 7=20mbit   hold the longest back to 20 Mbit/s\n  \
                      treeline up eth0 --rate 95mbit --dscp         mark the longest as lower effort"
    )]
    Up {
        /// Interface to schedule.
        #[arg(value_name = "IFACE")]
        interface: String,
        #[command(flatten)]
        how: UplinkArgs,
        /// Print what it would do as commands of ip and tc, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take an interface down: programs, maps, pins and qdisc go, the earlier qdisc comes back.
    #[command(after_help = "Example:\n  treeline down eth0")]
    Down {
        /// Interface to leave.
        #[arg(value_name = "IFACE", required_unless_present = "all")]
        interface: Option<String>,
        /// Take all interfaces of the instance down.
        #[arg(long, conflicts_with = "interface")]
        all: bool,
    },
    /// Show interfaces, bands, model, agent and counters.
    #[command(after_help = "Example:\n  treeline status --format json")]
    Status,
    /// Watch interfaces, bands, services, model and costs live, on a terminal of 80 by 24 or more.
    ///
    /// Keys are explained on the screen. Services come from a running agent; without one there are bands and counters. While it is
    /// open the kernel measures the run time of BPF programs, which costs some nanoseconds a packet.
    #[command(
        after_help = "Examples:\n  treeline top\n  treeline top --once --every 5s --format json"
    )]
    Top(TopArgs),
    /// Write what the interfaces' packets were and became, for learning elsewhere or later.
    ///
    /// Ends on SIGINT, SIGTERM, or by `--for` and `--max-rows`. Nothing is learned, and packets are not touched on interfaces that
    /// were not up before.
    #[command(
        after_help = "Examples:\n  treeline record eth0 --out monday.parquet --for 10m\n  \
                      treeline record --all --out now.parquet"
    )]
    Record(RecordArgs),
    /// Learn from datasets, judge on their later part, and say what came of it.
    #[command(
        after_help = "Examples:\n  treeline train --from monday.parquet --out model.json\n  \
                      treeline train --now                      the running agent, from its own traffic"
    )]
    Train(TrainArgs),
    /// Push captures through the kernel programs by their own clock, and write what came of it.
    #[command(
        after_help = "Examples:\n  treeline replay trace.pcap --out trace.parquet\n  \
                      treeline replay *.pcapng --out all.parquet --local 192.168.0.0/16"
    )]
    Replay(ReplayArgs),
    /// Look at what was learned, and change which of it acts.
    #[command(subcommand)]
    Model(ModelVerb),
    /// Say by which path a live flow got its band, and why it is in no other.
    #[command(
        after_help = "Examples:\n  treeline explain tcp 10.0.0.1:5000 10.0.0.2:80\n  \
                      treeline explain --dev eth0 $(ss -tnH state established dport 443 | head -1)"
    )]
    Explain(ExplainArgs),
    /// Write a page of the last period: what was learned, what it changed, what it was worth.
    ///
    /// One HTML file that needs nothing from elsewhere. No agent has to run; as root it also says what each band has carried.
    #[command(
        after_help = "Examples:\n  treeline report\n  treeline report --since 7days --out week.html\n  \
                      treeline report --format json"
    )]
    Report(ReportArgs),
    /// Check and show the configuration that `run` reads.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print completions for a shell.
    #[command(
        after_help = "Example:\n  treeline completions bash > /etc/bash_completion.d/treeline"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages and the reference of the command line.
    #[command(
        hide = true,
        after_help = "Example:\n  treeline manual --man man --markdown docs/cli.md"
    )]
    Manual(ManualArgs),
    /// Look whether treeline can work here: kernel, rights, qdiscs, interfaces; what to do where it can't.
    ///
    /// Everything is tried for real, where it disturbs nobody, and nothing is changed. Ends with 0 if treeline can work, also with
    /// warnings, and with 1 if something that it needs is missing.
    #[command(
        after_help = "Examples:\n  treeline doctor\n  treeline doctor eth0 --rate 20mbit --format json"
    )]
    Doctor(DoctorArgs),
    /// Measure what the kernel programs cost a packet here, and what share of a core that is at the present traffic.
    ///
    /// Programs of its own are loaded and run on made-up packets; what is attached goes on undisturbed, and no packet is sent.
    #[command(
        after_help = "Examples:\n  treeline bench\n  treeline bench eth0 --model none --format json"
    )]
    Bench(BenchArgs),
    /// Show what the agent did and why.
    #[command(
        after_help = "Examples:\n  treeline logs -n 20 --follow\n  treeline logs --level warn --since 1h\n  \
                      treeline logs --what deployed --format json"
    )]
    Logs(LogsArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Interfaces to schedule; without one the configuration says which.
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Configuration to read where no interface is named [default: /etc/treeline/config.toml].
    #[arg(long, value_name = "FILE", conflicts_with = "interfaces")]
    config: Option<std::path::PathBuf>,
    /// Serve metrics there for Prometheus, at /metrics.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<std::net::SocketAddr>,
    /// Group that may use the control socket, besides root [default: none].
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<Group>,
    /// Mode of the control socket, in octal [default: 600, or 660 with `--socket-group`].
    #[arg(long, value_name = "MODE")]
    socket_mode: Option<Mode>,
    #[command(flatten)]
    how: UplinkArgs,
    /// Time between training cycles (s, min, h).
    #[arg(long, value_parser = parse_period, default_value = "60s", value_name = "TIME")]
    train_every: Duration,
    /// Labelled samples to wait for before the first training.
    #[arg(long, default_value_t = 500, value_name = "N")]
    min_samples: usize,
    /// Fresh labelled samples on which a candidate is watched in the kernel before it may act; a cycle at least.
    #[arg(long, default_value_t = 300, value_name = "N")]
    canary_rows: usize,
    /// Sample one flow in N; a power of two.
    #[arg(long, value_parser = parse_one_in, default_value = "1", value_name = "N")]
    sample_one_in: u32,
    /// Share of what is learned from that one far network (/24, /48) may have where others compete.
    #[arg(long, value_parser = parse_share, default_value = "0.25", value_name = "SHARE")]
    network_share: f64,
    /// Share that far networks without standing may have together, unless they usually bring more.
    #[arg(long, value_parser = parse_share, default_value = "0.1", value_name = "SHARE")]
    newcomer_share: f64,
    /// Time for which a far network must come again and again before it has standing.
    #[arg(long, value_parser = parse_period, default_value = "5min", value_name = "TIME")]
    newcomer_for: Duration,
    /// Learn, and say what scheduling would be worth, without touching a packet or a qdisc; `--rate` says of which link.
    ///
    /// When it ends, it says so by service and by size of the messages, and takes the interfaces down.
    #[arg(long, conflicts_with_all = ["qdisc", "leaf", "replace", "dscp", "pace", "queues", "priorities", "ingress_rate",
          "steer", "metadata", "police"])]
    observe: bool,
    /// End by itself after this time (s, min, h).
    #[arg(long = "for", value_parser = parse_period, value_name = "TIME")]
    length: Option<Duration>,
    /// Print what it would do to the interfaces as commands, and do nothing.
    #[arg(long, conflicts_with = "observe")]
    dry_run: bool,
    /// Also write the labelled rows to this file, which must not be there yet.
    #[arg(long, value_name = "FILE.parquet")]
    record: Option<std::path::PathBuf>,
    /// Rows after which the file is full; learning goes on.
    #[arg(long, default_value_t = DEFAULT_MAX_ROWS, value_name = "N", requires = "record")]
    record_rows: u64,
}

#[derive(Debug, Args)]
struct UplinkArgs {
    /// Rate to shape to, a little below the link's: 100mbit, 1.5gbit, 800kbit.
    ///
    /// Without it nothing is shaped, and the queue that stands on the interface is told which packets go
    /// first. That helps where it fills, and not where the queue that fills is in a modem or router behind.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<u64>,
    /// Root qdisc [default: htb with `--rate`, keep without].
    #[arg(long, value_enum, value_name = "KIND")]
    qdisc: Option<RootChoice>,
    /// Model to begin with: `latest`, `none` (aging alone), or a model file.
    #[arg(long, value_parser = parse_model, default_value = "latest", value_name = "MODEL")]
    model: ModelChoice,
    /// Queue of each band.
    #[arg(long, value_enum, default_value_t = Leaf::Auto)]
    leaf: Leaf,
    /// Hook on egress.
    #[arg(long, value_enum, default_value_t = EgressChoice::Auto)]
    egress_hook: EgressChoice,
    /// Place on egress among programs of others, which all go on running.
    #[arg(long, value_enum, default_value_t = Order::First)]
    order: Order,
    /// Schedule VXLAN, Geneve, GRE and IP-in-IP packets by the flow inside the tunnel.
    #[arg(long)]
    inner: bool,
    /// Flows that the table has room for, 128 bytes each; rounded up to a power of two.
    ///
    /// The counter `flows_evicted` in `treeline status` says whether it is too small. It is set when the programs are
    /// loaded: take the interfaces down to change it.
    #[arg(
        long,
        value_name = "ENTRIES",
        default_value_t = DEFAULT_ENTRIES,
        value_parser = clap::value_parser!(u32).range(4..=i64::from(MAX_ENTRIES))
    )]
    flows: u32,
    /// Put aside a root qdisc that an administrator has set; `down` restores it.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    acts: ActArgs,
    #[command(flatten)]
    ingress: IngressArgs,
}

impl RunArgs {
    /// What `run` without a word comes to.
    fn plain() -> Self {
        #[derive(Debug, Parser)]
        struct Plain {
            #[command(flatten)]
            args: RunArgs,
        }
        Plain::parse_from(["treeline"]).args
    }
}

/// Queue of each band.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leaf {
    /// fq_codel where the kernel has it, else pfifo.
    Auto,
    /// First in, first out.
    Pfifo,
    /// Fair among flows.
    FqCodel,
}

impl UplinkArgs {
    /// What `up IFACE` would do without options: for who only watches.
    fn watching() -> Self {
        #[derive(Debug, Parser)]
        struct Plain {
            #[command(flatten)]
            how: UplinkArgs,
        }
        Plain::parse_from(["treeline"]).how
    }

    fn wanted(&self) -> Wanted {
        let leaf = match self.leaf {
            Leaf::Auto => LeafChoice::Auto,
            Leaf::Pfifo => LeafChoice::Pfifo,
            Leaf::FqCodel => LeafChoice::FqCodel,
        };
        let by_default = if self.rate.is_some() {
            RootChoice::Htb
        } else {
            RootChoice::Keep
        };
        Wanted {
            rate_bps: self.rate,
            root: self.qdisc.unwrap_or(by_default),
            leaf,
            egress: self.egress_hook,
            order: self.order,
            replace: self.replace,
            inner: self.inner,
            acts: self.acts.acts(),
            flow_entries: self.flows,
            ingress: self.ingress.wanted(),
            observe: false,
        }
    }

    /// The same without touching a packet or a qdisc.
    fn observed(&self) -> Wanted {
        Wanted {
            rate_bps: None,
            root: RootChoice::Keep,
            replace: false,
            acts: Acts::default(),
            ingress: Ingress::default(),
            observe: true,
            ..self.wanted()
        }
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.01..=1.0).contains(&share) => Ok(share),
        _ => Err("a share from 0.01 to 1 is needed; 1 is no bound".to_owned()),
    }
}

fn parse_one_in(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && n <= 1 << 20 => Ok(n),
        _ => Err("a power of two from 1 to 1048576 is needed: 1, 2, 4, 8 and so on".to_owned()),
    }
}

fn parse_model(text: &str) -> Result<ModelChoice, String> {
    let meant = nearest(text, ["latest", "none"].into_iter());
    Ok(match (text, meant) {
        ("latest", _) => ModelChoice::Latest,
        ("none", _) => ModelChoice::None,
        (path, Some(meant)) if !std::path::Path::new(path).exists() => {
            return Err(format!("there is no such file; did you mean `{meant}`?"));
        }
        (path, _) => ModelChoice::File(path.into()),
    })
}

/// Runs the command and turns its outcome into an exit code.
pub fn execute(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            exit::complain(&error);
            Exit::of(&error).into()
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let Cli {
        instance,
        format,
        verb,
    } = cli;
    let instance = Instance::new(&instance)?;
    if matches!(
        verb,
        Verb::Run(_)
            | Verb::Up { .. }
            | Verb::Down { .. }
            | Verb::Record(_)
            | Verb::Replay(_)
            | Verb::Bench(_)
    ) {
        exit::require_root()?;
    }
    match verb {
        Verb::Run(args) => run::run(&instance, format, &args),
        Verb::Up {
            interface,
            how,
            dry_run: true,
        } => plan::print_plan(&instance, format, &[(interface, how.wanted())]),
        Verb::Up { interface, how, .. } => updown::up(&instance, format, &interface, &how),
        Verb::Down { interface, .. } => updown::down(&instance, format, interface.as_deref()),
        Verb::Status => status::status(&instance, format),
        Verb::Top(args) => top::run(&instance, format, &args),
        Verb::Record(args) => record::record(&instance, format, &args),
        Verb::Train(args) => train::train(&instance, format, &args),
        Verb::Replay(args) => replay::run(format, &args),
        Verb::Model(verb) => model::run(&instance, format, &verb),
        Verb::Completions { shell } => {
            manual::completions(shell);
            Ok(())
        }
        Verb::Manual(args) => manual::write(&args),
        Verb::Report(args) => report::run(&instance, format, &args),
        Verb::Config(verb) => config::run(&instance, format, &verb),
        Verb::Bench(args) => bench::run(&instance, format, &args),
        Verb::Doctor(args) => doctor::run(&instance, format, &args),
        Verb::Explain(args) => explain::run(&instance, format, &args),
        Verb::Logs(args) => logs::logs(&instance, format, &args),
    }
}

/// Has the agent do what only an agent can.
fn ask_agent<T: serde::de::DeserializeOwned>(instance: &Instance, path: &str) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        match Client::connect(instance).await {
            Some(agent) => Ok(agent.post(path, "").await?),
            None => Err(control::client::NoAgent::of(instance).into()),
        }
    })
}

/// One runtime thread is enough: training has a thread of its own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Prints a result; the one place that writes to stdout. Colours are dropped where it is no terminal or `NO_COLOR` is set.
fn print(text: &str) {
    anstream::println!("{text}");
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests;
