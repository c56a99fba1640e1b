//! Wireguard devices, real ones, joined over veth.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use bed::{
    command,
    netns::{Bed, CLIENT_V4, Namespace, SERVER_V4},
};

use super::Pair;
use crate::support::{agent::Site, missing, privileged, tunnel};

const DEVICE: &str = "wg0";
const PORT: u16 = 51_820;

/// A wireguard tunnel between a bed's server, which is the near end, and its client.
struct Wireguard {
    bed: Bed,
    addresses: [[IpAddr; 2]; 2],
}

impl Wireguard {
    /// `None` where the kernel has no wireguard.
    fn new(network: u8) -> Option<Self> {
        let v4 = |host| IpAddr::from(Ipv4Addr::new(10, 82, network, host));
        let v6 = |host| {
            IpAddr::from(Ipv6Addr::new(
                0xfd00,
                0x82,
                network.into(),
                0,
                0,
                0,
                0,
                host,
            ))
        };
        let bed = Bed::host().unwrap();
        let tunnel = Self {
            bed,
            addresses: [[v4(1), v4(2)], [v6(1), v6(2)]],
        };
        let ends = [&tunnel.bed.server, &tunnel.bed.client];
        for namespace in ends {
            if let Err(error) = namespace.ip(&format!("link add {DEVICE} type wireguard")) {
                missing("wireguard", format!("there is no such device: {error}"));
                return None;
            }
        }
        let private = ends.map(|_| command::run("wg", "genkey").unwrap());
        let public = private.each_ref().map(|key| public(key));
        for (here, underlay) in [(0, CLIENT_V4), (1, SERVER_V4)] {
            tunnel.configure(ends[here], here, &private[here]);
            let peer = format!(
                "set {DEVICE} peer {} endpoint {underlay}:{PORT} allowed-ips {}/32,{}/128",
                public[1 - here],
                tunnel.addresses[0][1 - here],
                tunnel.addresses[1][1 - here],
            );
            ends[here]
                .output(Command::new("wg").args(peer.split(' ')))
                .unwrap();
        }
        Some(tunnel)
    }

    fn configure(&self, namespace: &Namespace, end: usize, private: &str) {
        let key = tempfile::NamedTempFile::new().unwrap();
        fs::write(key.path(), private).unwrap();
        let port = PORT.to_string();
        namespace
            .output(
                Command::new("wg")
                    .args(["set", DEVICE, "listen-port", &port, "private-key"])
                    .arg(key.path()),
            )
            .unwrap();
        for [address, length] in [
            [self.addresses[0][end].to_string(), "24".to_owned()],
            [self.addresses[1][end].to_string(), "64 nodad".to_owned()],
        ] {
            namespace
                .ip(&format!("addr add dev {DEVICE} {address}/{length}"))
                .unwrap();
        }
        namespace.ip(&format!("link set {DEVICE} up")).unwrap();
    }

    fn exchange(&self, version: usize, near_answers: bool, bytes: usize) {
        let [near, far] = [&self.bed.server, &self.bed.client];
        let [near_address, far_address] = self.addresses[version];
        if near_answers {
            tunnel::answered((near, far), near_address, bytes);
        } else {
            tunnel::answered((far, near), far_address, bytes);
        }
    }

    /// Bytes of its peer that the near device has decrypted.
    fn received_bytes(&self) -> u64 {
        let shown = self
            .bed
            .server
            .output(Command::new("wg").args(["show", DEVICE, "transfer"]))
            .unwrap();
        shown
            .split_whitespace()
            .nth(1)
            .expect("there is one peer")
            .parse()
            .unwrap()
    }
}

fn public(private: &str) -> String {
    let mut wg = Command::new("wg")
        .arg("pubkey")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = wg.stdin.take().expect("it is piped");
    stdin.write_all(private.as_bytes()).unwrap();
    drop(stdin);
    let output = wg.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Real traffic through the tunnel; the near end is under treeline.
fn flows_are_seen(network: u8, options: &[&str]) {
    if !privileged() {
        return;
    }
    let Some(tunnel) = Wireguard::new(network) else {
        return;
    };
    // The IFB device would speak ICMPv6 of its own accord.
    tunnel
        .bed
        .server
        .write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        .unwrap();
    for version in [0, 1] {
        let before = tunnel.received_bytes();
        super::flows_are_seen(
            &Pair {
                namespace: &tunnel.bed.server,
                device: DEVICE,
                exchange: &|near_answers, bytes| tunnel.exchange(version, near_answers, bytes),
            },
            options,
        );
        assert!(tunnel.received_bytes() - before > 800_000);
    }
}

#[test]
fn flows_of_a_wireguard_device_are_seen_both_ways() {
    flows_are_seen(1, &[]);
}

#[test]
fn the_downlink_of_a_wireguard_device_is_shaped() {
    flows_are_seen(2, &["--ingress-rate", "400mbit"]);
}

#[test]
fn steering_is_refused_where_the_driver_has_no_xdp() {
    if !privileged() {
        return;
    }
    let Some(tunnel) = Wireguard::new(3) else {
        return;
    };
    let site = Site::new(&tunnel.bed.server);
    let up = ["up", DEVICE, "--rate", "100mbit"];
    site.call(&[&up[..], &["--steer", "urgent=0,bulk=0"]].concat())
        .expect(1)
        .says("driver has no XDP");
    site.assert_no_trace();
    site.call(&up).expect(0);
    let status = site.status();
    assert_eq!(
        status["interfaces"][0]["ingress_hook"], "xdp-generic",
        "{status}"
    );
}
