//! Network namespaces joined by veth pairs, removed when dropped.
//!
//! `ip netns exec` mounts a fresh /sys and so hides bpffs from whatever runs inside. Here a
//! dedicated thread enters the namespace with `setns` instead; sockets it makes and processes
//! it starts belong to the namespace, and everything else stays as it was.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

pub use crate::beds::Bed;
use crate::command;

/// The server's end of the veth pair: the link that is shaped.
pub const UPLINK: &str = "uplink";
/// The client's end of the veth pair.
pub const ACCESS: &str = "access";
/// The server's IPv4 address.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
/// The client's IPv4 address.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));
/// The server's IPv6 address.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1));
/// The client's IPv6 address.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2));

pub(crate) const SERVER_MAC: &str = "02:00:00:00:99:01";
pub(crate) const CLIENT_MAC: &str = "02:00:00:00:99:02";

/// The congestion control between the ends of a bed.
pub const CONGESTION_CONTROL: &str = "cubic";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// TCP segments of a namespace since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Segments {
    /// Sent for the first time.
    pub sent: u64,
    /// Sent again.
    pub retransmitted: u64,
}

/// A named network namespace; dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `treeline-<tag>-<pid>-<n>` with the loopback up and ordinary TCP settings.
    ///
    /// # Errors
    ///
    /// Without root, without iproute2, or when a setting is refused.
    pub fn new(tag: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("treeline-{tag}-{}-{number}", std::process::id());
        command::run("ip", &format!("netns add {name}"))
            .context("network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        namespace.write_sysctls(&[
            // Figures of one run must not leak into the next through the destination cache.
            ("net/ipv4/tcp_no_metrics_save", "1"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
        ])?;
        Ok(namespace)
    }

    /// The name as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the namespace can be opened.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` inside, for example `ip("link set uplink up")`.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        command::run("ip", &format!("-n {} {arguments}", self.name))
    }

    /// Runs `tc` inside, for example `tc("-s qdisc show dev uplink")`.
    ///
    /// # Errors
    ///
    /// When `tc` fails.
    pub fn tc(&self, arguments: &str) -> Result<String> {
        command::run("tc", &format!("-n {} {arguments}", self.name))
    }

    /// Starts a thread that lives inside the namespace.
    ///
    /// # Errors
    ///
    /// When the namespace can't be opened or the thread can't be started. That entering failed
    /// is told by the thread's own result.
    pub fn thread<T, F>(&self, name: &str, work: F) -> Result<JoinHandle<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let namespace = self.open()?;
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            work()
        })?;
        Ok(thread)
    }

    /// Runs `work` on a thread inside the namespace and waits for it.
    ///
    /// # Errors
    ///
    /// When the namespace can't be entered, or what `work` gives.
    pub fn enter<T, F>(&self, work: F) -> Result<T>
    where
        T: Send,
        F: FnOnce() -> Result<T> + Send,
    {
        let namespace = self.open()?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)
                    .context("cannot enter the namespace")?;
                work()
            });
            inside
                .join()
                .map_err(|_panic| anyhow!("the thread in {} panicked", self.name))?
        })
    }

    /// Starts a process inside; /sys and bpffs stay those of the host.
    ///
    /// # Errors
    ///
    /// When the namespace can't be entered or the program can't be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enter(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {command:?}"))
        })
    }

    /// Runs a process inside to its end; the answer is its standard output.
    ///
    /// # Errors
    ///
    /// When it can't be started or fails.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.enter(|| command::output(command))
    }

    /// Writes one setting below /proc/sys, for example `net/ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the value.
    pub fn write_sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.write_sysctls(&[(key, value)])
    }

    /// Segments that TCP in this namespace has sent again so far.
    ///
    /// # Errors
    ///
    /// When the kernel's counters can't be read.
    pub fn retransmitted_segments(&self) -> Result<u64> {
        Ok(self.segments()?.retransmitted)
    }

    /// What TCP in this namespace has sent so far.
    ///
    /// # Errors
    ///
    /// When the kernel's counters can't be read.
    pub fn segments(&self) -> Result<Segments> {
        let counters = self.enter(|| {
            // Not /proc/net: that is the view of the process's first thread.
            fs::read_to_string("/proc/thread-self/net/snmp").context("cannot read TCP's counters")
        })?;
        let mut rows = counters
            .lines()
            .filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (rows.next().unwrap_or(""), rows.next().unwrap_or(""));
        let value = |wanted: &str| {
            names
                .split_whitespace()
                .zip(values.split_whitespace())
                .find_map(|(name, value)| (name == wanted).then(|| value.parse().ok())?)
                .with_context(|| format!("TCP's counters have no {wanted}"))
        };
        Ok(Segments {
            sent: value("OutSegs")?,
            retransmitted: value("RetransSegs")?,
        })
    }

    fn write_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                fs::write(format!("/proc/sys/{key}"), value)
                    .with_context(|| format!("cannot set {key} to {value}"))?;
            }
            Ok(())
        })
    }

    fn open(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("cannot open {}", path.display()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and it must not hide the first error.
        drop(command::run("ip", &format!("netns delete {}", self.name)));
    }
}

/// One end of a veth pair: where, under which name, with which addresses.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace it lies in.
    pub namespace: &'a Namespace,
    /// Interface name, at most 15 characters.
    pub interface: &'a str,
    /// Ethernet address.
    pub mac: &'a str,
    /// IPv4 and IPv6 address; the prefixes are /24 and /64.
    pub addresses: [IpAddr; 2],
}

/// Joins two namespaces by a veth pair with fixed neighbours, so that neither ARP nor
/// neighbour discovery disturbs a measurement.
///
/// # Errors
///
/// When `ip` fails.
pub fn join(left: End<'_>, right: End<'_>) -> Result<()> {
    left.namespace.ip(&format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        left.interface,
        left.mac,
        right.interface,
        right.mac,
        right.namespace.name()
    ))?;
    for (near, far) in [(left, right), (right, left)] {
        let interface = near.interface;
        for address in near.addresses {
            let form = if address.is_ipv4() { "24" } else { "64 nodad" };
            near.namespace
                .ip(&format!("addr add dev {interface} {address}/{form}"))?;
        }
        near.namespace.ip(&format!("link set {interface} up"))?;
        for address in far.addresses {
            near.namespace.ip(&format!(
                "neigh replace {address} lladdr {} dev {interface} nud permanent",
                far.mac
            ))?;
            // The host may default to BBR, which paces and so hides the queue. The sysctl of a
            // namespace refuses algorithms that the host does not allow to everybody; a route
            // may name any.
            near.namespace.ip(&format!(
                "route add {address} dev {interface} congctl {CONGESTION_CONTROL}"
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bed_carries_its_own_settings_and_leaves_nothing_behind() {
        let bed = Bed::host().unwrap();
        let names = [bed.client.name().to_owned(), bed.server.name().to_owned()];
        let control = bed
            .server
            .enter(|| {
                let listener = std::net::TcpListener::bind((SERVER_V4, 0))?;
                let address = listener.local_addr()?;
                let client = bed
                    .client
                    .enter(|| Ok(std::net::TcpStream::connect(address)?))?;
                let accepted = socket2::SockRef::from(&listener)
                    .accept()?
                    .0
                    .tcp_congestion()?;
                drop(client);
                Ok(String::from_utf8_lossy(&accepted).into_owned())
            })
            .unwrap();
        assert_eq!(control.trim_end_matches('\0'), CONGESTION_CONTROL);
        let links = bed
            .server
            .output(Command::new("ip").args(["-br", "link"]))
            .unwrap();
        assert!(links.contains(UPLINK), "{links}");
        assert!(
            !fs::read_to_string("/proc/net/dev")
                .unwrap()
                .contains(UPLINK)
        );
        drop(bed);
        let listed = command::run("ip", "netns list").unwrap();
        assert!(names.iter().all(|name| !listed.contains(name)), "{listed}");
    }
}
