//! What `treeline explain` says of real connections.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use bed::netns::{Bed, CLIENT_V4, SERVER_V4, SERVER_V6, UPLINK};
use serde_json::Value;

use crate::{
    registry::{by_port, file},
    support::{agent::Site, json::documented, privileged},
};

const PORT: u16 = 7300;
const REQUEST_BYTES: usize = 200;
const REPLY_BYTES: usize = 60_000;
const LIMIT: Duration = Duration::from_secs(60);

/// A connection that stays open.
struct Kept {
    client: TcpStream,
    server: TcpStream,
}

impl Kept {
    fn open(bed: &Bed, address: SocketAddr) -> Self {
        let listener = bed
            .server
            .enter(move || Ok(TcpListener::bind(address)?))
            .unwrap();
        let client = bed
            .client
            .enter(move || Ok(TcpStream::connect_timeout(&address, LIMIT)?));
        let (client, (server, _)) = (client.unwrap(), listener.accept().unwrap());
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
        }
        Self { client, server }
    }

    /// A request and its reply, read to the end.
    fn exchange(&mut self) {
        let Self { client, server } = self;
        thread::scope(|scope| {
            scope.spawn(|| {
                server.read_exact(&mut [0; REQUEST_BYTES]).unwrap();
                server.write_all(&[7; REPLY_BYTES]).unwrap();
            });
            client.write_all(&[1; REQUEST_BYTES]).unwrap();
            client.read_exact(&mut [0; REPLY_BYTES]).unwrap();
        });
    }

    fn ends(&self) -> [String; 2] {
        [&self.server, &self.client].map(|end| end.local_addr().unwrap().to_string())
    }
}

fn explained(site: &Site<'_>, words: &[&str]) -> Value {
    let done = site.call(&[&["explain", "--format", "json"], words].concat());
    let explained = done.expect(0).json();
    documented("explain", &explained);
    explained
}

#[test]
fn a_live_connection_is_explained_with_and_without_a_model() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    // 2^24 bytes are beyond the last cut.
    let model = file(directory.path(), "model.json", &by_port(PORT, 24.0));
    site.up(&[]).expect(0);
    site.call(&["model", "push", model.to_str().unwrap()])
        .expect(0);
    let mut kept = Kept::open(&bed, (SERVER_V4, PORT).into());
    kept.exchange();
    let [server, client] = kept.ends();

    let told = explained(&site, &["tcp", &server, &client, "--dev", UPLINK]);
    assert_eq!((&told["schema"], &told["acting"]), (&1.into(), &1.into()));
    assert_eq!(
        (&told["service_port"], &told["service_known"]),
        (&PORT.into(), &true.into())
    );
    let [reply, request] = told["directions"].as_array().unwrap().as_slice() else {
        panic!("{told}");
    };
    assert_eq!(
        (&reply["from"], &reply["from_service"]),
        (&server.as_str().into(), &true.into())
    );
    assert_eq!(
        (&reply["bytes"], &reply["message"]),
        (&REPLY_BYTES.into(), &1.into())
    );
    assert_eq!(
        (&reply["judged"], &reply["judged_by"]),
        (&true.into(), &1.into())
    );
    assert_eq!(reply["verdict"]["band"], 7, "{reply}");
    assert_eq!(reply["verdict"]["by_bytes"], 2, "{reply}");
    assert_eq!(
        (&request["bytes"], &request["judged"]),
        (&REQUEST_BYTES.into(), &false.into())
    );
    let walk = &reply["walk"];
    assert_eq!(
        (&walk["generation"], &walk["agrees"]),
        (&1.into(), &true.into())
    );
    let turns = walk["trees"][0]["turns"].as_array().unwrap();
    let asked: Vec<&Value> = turns.iter().map(|turn| &turn["feature"]).collect();
    assert_eq!(asked, ["service_port", "service_port"]);
    let fitting = walk["fitting"].as_array().unwrap();
    assert_eq!(fitting.len(), 1, "{walk}");
    let then = fitting[0]["bytes_at_decision"].as_u64().unwrap();
    assert!((1..=REPLY_BYTES as u64).contains(&then), "{walk}");

    // The other way round, as `ss` prints it at the client, and in words.
    let line = format!("ESTAB 0 0 {client} {server}");
    let other = explained(&site, &line.split(' ').collect::<Vec<_>>());
    assert_eq!(other["directions"][1]["walk"], reply["walk"]);
    site.call(&["explain", "tcp", &server, &client])
        .expect(0)
        .says("band 7")
        .says("predicted 17 MB")
        .says("service_port = 7300")
        .says("not sooner: it is predicted to have 17 MB")
        .says("not later: it is in the last band");
    let given = explained(
        &site,
        &["tcp", &server, &client, "--features", "service_port=1"],
    );
    let walk = &given["directions"][0]["walk"];
    assert_eq!(
        (&walk["bytes_to_come"], &walk["agrees"]),
        (&0.into(), &false.into())
    );
    assert_eq!(walk["trees"][0]["turns"][0]["source"], "given");

    site.call(&["model", "rollback", "--to-aging"]).expect(0);
    kept.exchange();
    let aged = explained(&site, &["tcp", &server, &client]);
    let reply = &aged["directions"][0];
    assert_eq!(
        (&reply["message"], &reply["bytes"]),
        (&2.into(), &REPLY_BYTES.into())
    );
    assert_eq!(reply["previous_bytes"], REPLY_BYTES);
    assert_eq!(
        (&reply["verdict"]["band"], &reply["judged"]),
        (&2.into(), &false.into())
    );
    assert!(
        aged["acting"].is_null() && reply["walk"].is_null(),
        "{aged}"
    );

    site.call(&["explain", "tcp", &server, "10.99.0.9:1"])
        .expect(1)
        .says("no entry")
        .says(UPLINK);
    site.call(&["explain", "--dev", "absent", "tcp", &server, &client])
        .expect(4)
        .says(UPLINK);
    site.call(&["explain", "tcp", "10.0.0.1:1"])
        .expect(2)
        .says("tcp 10.0.0.1:5000");
    site.call(&["explain", "tcp", &server, &client, "--features", "colour=3"])
        .expect(2)
        .says("packet_bytes");
    site.down().expect(0);
    site.call(&["explain", "tcp", &server, &client])
        .expect(1)
        .says("treeline up");
}

#[test]
fn a_stream_is_called_one() {
    const PACKETS: usize = 40;
    const PACKET_BYTES: usize = 400;
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&[]).expect(0);
    let bound = |address: IpAddr| move || Ok(UdpSocket::bind((address, 0))?);
    let speaker = bed.server.enter(bound(SERVER_V4)).unwrap();
    let listener = bed.client.enter(bound(CLIENT_V4)).unwrap();
    let ends = [&speaker, &listener].map(|socket| socket.local_addr().unwrap());
    // Beyond the first bytes, but within the first window: on probation, however fast.
    for _ in 0..PACKETS {
        speaker.send_to(&[5; PACKET_BYTES], ends[1]).unwrap();
    }
    let [from, to] = ends.map(|end| end.to_string());
    let told = explained(&site, &["udp", &from, &to]);
    let sent = &told["directions"][0];
    assert_eq!(sent["bytes"], PACKETS * PACKET_BYTES, "{sent}");
    let verdict = &sent["verdict"];
    assert_eq!(
        (&verdict["stream"], &verdict["band"], &verdict["by_bytes"]),
        (&true.into(), &0.into(), &1.into()),
        "{sent}"
    );
    site.call(&["explain", "udp", &from, &to])
        .expect(0)
        .says("band 0: a stream: 16 kB in small packets (400 B in the mean)")
        .says("would put it in band 1");
    site.down().expect(0);
}

#[test]
fn a_connection_over_ipv6_is_found_on_any_interface() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&[]).expect(0);
    let mut kept = Kept::open(&bed, (SERVER_V6, PORT).into());
    kept.exchange();
    let [server, client] = kept.ends();
    let told = explained(&site, &["tcp", &client, &server]);
    assert_eq!(told["interface"], UPLINK);
    assert_eq!(told["directions"][1]["bytes"], REPLY_BYTES);
    assert_eq!(told["directions"][1]["verdict"]["band"], 2);
    site.down().expect(0);
}
