//! What the sending socket tells: real TCP, real samples.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use bed::netns::{Bed, SERVER_V4, UPLINK};
use scheduler_common::{
    features::Feature,
    sample::{Hook, Sample, SampleKind},
    settings::{SAMPLES_PER_WINDOW, Settings},
};
use zerocopy::FromBytes as _;

use crate::support::{agent::Site, privileged};

const PORT: u16 = 7100;
/// Within the first window, so that the application has written all of it before the first packet leaves.
const SHORT_BYTES: usize = 12_000;
/// More than a socket takes at once.
const LONG_BYTES: usize = 300_000;
const LIMIT: Duration = Duration::from_secs(60);

/// One request, and a reply that is written in one call.
fn transfer(bed: &Bed, port: u16, reply_bytes: usize) {
    let address = SocketAddr::new(SERVER_V4, port);
    let listener = bed
        .server
        .enter(move || Ok(TcpListener::bind(address)?))
        .unwrap();
    let server = bed.server.thread("reply", move || {
        let (mut stream, _) = listener.accept()?;
        stream.read_exact(&mut [0; 100])?;
        stream.write_all(&vec![7; reply_bytes])?;
        Ok(())
    });
    let client = bed.client.thread("ask", move || {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&[1; 100])?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        Ok(reply.len())
    });
    server.unwrap().join().unwrap().unwrap();
    assert_eq!(client.unwrap().join().unwrap().unwrap(), reply_bytes);
}

fn at(sample: &Sample, feature: Feature) -> u32 {
    sample.features[feature as usize]
}

#[test]
fn the_socket_tells_what_the_application_has_written_and_not_yet_sent() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let up = ["up", UPLINK, "--rate", "200mbit", "--model", "none"];
    site.call(&up).expect(0);
    let datapath = site.datapath();
    let settings = datapath.settings().unwrap();
    datapath
        .set_settings(&Settings {
            sample_mask: 0,
            samples_per_window: SAMPLES_PER_WINDOW,
            ..settings
        })
        .unwrap();
    let mut ring = datapath.samples().unwrap();
    let whole = [(PORT, SHORT_BYTES), (PORT + 1, LONG_BYTES)];
    for (port, bytes) in whole {
        transfer(&bed, port, bytes);
    }
    let mut replies = Vec::new();
    let deadline = Instant::now() + LIMIT;
    while !replies.iter().any(|of: &Sample| of.bytes >= 100_000) {
        assert!(Instant::now() < deadline, "{replies:?}");
        while let Some(record) = ring.next() {
            let sample = Sample::read_from_bytes(&record).unwrap();
            let of_reply = sample.kind == SampleKind::Decision as u16
                && sample.hook == Hook::Egress as u8
                && at(&sample, Feature::FromService) == 1;
            if of_reply {
                replies.push(sample);
            }
        }
        std::thread::yield_now();
    }
    for (port, bytes) in whole {
        let of_port = |sample: &&Sample| at(sample, Feature::ServicePort) == u32::from(port);
        let sent: Vec<_> = replies.iter().filter(of_port).collect();
        assert!(!sent.is_empty());
        for sample in &sent {
            assert!(at(sample, Feature::SocketWindowPackets) > 0, "{sample:?}");
            assert!(at(sample, Feature::SocketRttUs) > 0, "{sample:?}");
            // One more than the bytes, so that 0 says that there is no socket.
            let unsent = at(sample, Feature::SocketUnsentBytes).checked_sub(1);
            let written = sample.bytes + u64::from(unsent.expect("it came from a socket"));
            // A FIN that waits behind the data takes a number, too.
            let (bytes, with_fin) = (bytes as u64, bytes as u64 + 1);
            assert!(written <= with_fin, "{sample:?}");
            if port == PORT {
                assert!([bytes, with_fin].contains(&written), "{sample:?}");
            }
        }
        // The first packet leaves when more is written than it holds.
        assert!(at(sent[0], Feature::SocketUnsentBytes) > 1, "{:?}", sent[0]);
    }
    site.call(&["down", UPLINK]).expect(0);
}
