//! Who keeps how many rows, in quiet and under floods.

use super::{super::samples::row, heeded::level, *};

fn of_port(window: &Window, port: u32) -> usize {
    window
        .rows()
        .iter()
        .filter(|r| r.feature(Feature::ServicePort) == port)
        .count()
}

#[test]
fn a_busy_service_does_not_crowd_out_a_quiet_one() {
    let mut window = Window::new(
        WindowLimits {
            rows: 1000,
            age_ns: u64::MAX,
            ..WindowLimits::default()
        },
        1,
    );
    for time in 0..100 {
        window.push(row(time, time, 22));
    }
    for time in 100..50_000 {
        window.push(row(time, time, 443));
    }
    assert_eq!((window.len(), window.services()), (1000, 2));
    assert_eq!(of_port(&window, 22), 100);
}

#[test]
fn a_late_service_gets_its_share_from_the_largest() {
    let mut window = Window::new(
        WindowLimits {
            rows: 900,
            age_ns: u64::MAX,
            ..WindowLimits::default()
        },
        1,
    );
    for time in 0..5000 {
        window.push(row(time, time, 443));
    }
    for time in 5000..9000 {
        window.push(row(time, time, 80));
        window.push(row(time, time, 22));
    }
    assert_eq!(
        [443, 80, 22].map(|port| of_port(&window, port)),
        [300, 300, 300]
    );
}

#[test]
fn a_scan_of_client_ports_is_one_service() {
    let mut window = Window::new(
        WindowLimits {
            rows: 100,
            age_ns: u64::MAX,
            ..WindowLimits::default()
        },
        1,
    );
    for time in 0..50 {
        window.push(row(time, time, 443));
    }
    for port in 32_768..60_000 {
        window.push(row(u64::from(port), 60, port));
    }
    assert_eq!((window.services(), of_port(&window, 443)), (2, 50));
}

#[test]
fn old_rows_leave_and_the_rest_is_in_order_of_time() {
    let mut window = Window::new(
        WindowLimits {
            rows: 1000,
            age_ns: 100,
            ..WindowLimits::default()
        },
        1,
    );
    for time in [50, 10, 20, 115, 90, 112] {
        window.push(row(time, time, 443));
    }
    let times: Vec<u64> = window.rows().iter().map(|r| r.time_ns).collect();
    assert_eq!(times, [20, 50, 90, 112, 115]);
    window.push(row(1, 5, 443));
    assert_eq!(
        window.rows().len(),
        5,
        "a row that is too old on arrival stays out"
    );
    window.push(row(1, 1000, 443));
    assert_eq!(window.len(), 1);
}

#[test]
fn rows_of_the_ingress_program_stay_out() {
    let mut window = Window::new(WindowLimits::default(), 1);
    window.push(Row {
        hook: Hook::Ingress,
        ..row(1, 1, 443)
    });
    assert!(window.is_empty());
}

#[test]
fn the_same_seed_keeps_the_same_rows() {
    let fill = || {
        let mut window = Window::new(
            WindowLimits {
                rows: 50,
                age_ns: u64::MAX,
                ..WindowLimits::default()
            },
            9,
        );
        for time in 0..500 {
            window.push(row(time, time, if time % 3 == 0 { 80 } else { 443 }));
        }
        window.rows()
    };
    assert_eq!(fill(), fill());
}

/// Rows of 200 networks and two services, one every tick.
fn honest(time: u64) -> Row {
    Row {
        network_hash: (time % 200) as u32,
        ..row(time, time, if time.is_multiple_of(4) { 80 } else { 443 })
    }
}

fn small() -> WindowLimits {
    WindowLimits {
        rows: 4000,
        age_ns: u64::MAX,
        undisputed_rows: 100,
        ..WindowLimits::default()
    }
}

fn count(rows: &[Row], which: impl Fn(&Row) -> bool) -> usize {
    rows.iter().filter(|row| which(row)).count()
}

const FLOOD: u32 = 0xf100d;

fn is_honest(row: &Row) -> bool {
    row.network_hash != FLOOD
}

#[test]
fn a_flood_of_one_service_takes_no_place_of_another() {
    let mut window = Window::new(small(), 1);
    (0..1500).for_each(|time| window.push(honest(time)));
    for time in 1500..100_000 {
        // From everywhere.
        window.push(Row {
            network_hash: time as u32,
            ..row(time, time, 25)
        });
    }
    let rows = window.rows();
    assert_eq!(
        count(&rows, |r| r.feature(Feature::ServicePort) != 25),
        1500
    );
    assert_eq!(window.len(), 4000);
}

#[test]
fn a_flood_of_one_network_over_many_services_takes_a_share_and_no_more() {
    let limits = small();
    let mut window = Window::new(limits, 1);
    (0..8000).for_each(|time| window.push(honest(time)));
    for time in 8000..200_000 {
        window.push(Row {
            network_hash: FLOOD,
            ..row(time, time, (time % 1000) as u32)
        });
    }
    let honest_ones = count(&window.rows(), is_honest);
    let share = (limits.rows as f64 * limits.network_share) as usize;
    assert_eq!(honest_ones, limits.rows - share);
}

#[test]
fn a_network_that_came_first_gives_way_to_those_that_come_later() {
    let limits = small();
    let mut window = Window::new(limits, 1);
    for time in 0..8000 {
        window.push(Row {
            network_hash: FLOOD,
            ..row(time, time, (time % 1000) as u32)
        });
    }
    assert_eq!(window.rows().len(), limits.rows, "alone it may have all");
    for time in 8000..16_000 {
        window.push(honest(time));
        window.push(Row {
            network_hash: FLOOD,
            ..row(time, time, (time % 1000) as u32)
        });
    }
    let rows = window.rows();
    let foreign = rows.len() - count(&rows, is_honest);
    assert!(foreign <= rows.len() / 4 + 1, "{foreign} of {}", rows.len());
    assert!(count(&rows, is_honest) >= limits.rows / 2);
}

#[test]
fn what_is_learned_from_is_not_drowned_in_the_rows_of_one_network() {
    let mut window = Window::new(small(), 1);
    (0..300).for_each(|time| window.push(honest(time)));
    for time in 300..3300 {
        window.push(Row {
            network_hash: FLOOD,
            ..row(time, time, 443)
        });
    }
    assert_eq!(window.len(), 3300, "there is room for all");
    let rows = window.rows();
    assert_eq!(count(&rows, is_honest), 300);
    assert_eq!(rows.len(), 400, "a quarter is from the network that floods");
    assert_eq!(rows, window.rows(), "the choice is repeated");
}

#[test]
fn one_service_and_one_network_may_fill_the_window_alone() {
    let mut window = Window::new(small(), 1);
    for time in 0..10_000 {
        window.push(Row {
            network_hash: 7,
            ..row(time, time, 443)
        });
    }
    assert_eq!(window.rows().len(), 4000);
}

#[test]
fn the_level_keeps_the_share() {
    assert_eq!(level(&[10, 10, 10, 1000], 0.25), 10);
    assert_eq!(level(&[100, 100, 100, 100, 1000], 0.25), 133);
    assert_eq!(level(&[50, 50, 50, 50], 0.25), 50);
    assert_eq!(level(&[900, 900, 300, 300, 300], 0.25), 450);
}

#[test]
fn the_lists_of_groups_stay_true() {
    let mut window = Window::new(
        WindowLimits {
            rows: 64,
            age_ns: 300,
            ..WindowLimits::default()
        },
        3,
    );
    for time in 0..2000u64 {
        let spread = time.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        window.push(Row {
            network_hash: (spread % 5) as u32,
            ..row(time, time, (spread % 7) as u32)
        });
        for (place, placed) in window.rows.iter().enumerate() {
            let service = &window.services.places[&service_of(&placed.row)];
            let network = &window.networks.places[&network_of(&placed.row)];
            assert_eq!(
                (service[placed.in_service], network[placed.in_network]),
                (place, place)
            );
        }
        let listed: usize = window.services.places.values().map(Vec::len).sum();
        assert_eq!((listed, window.len() <= 64), (window.len(), true));
    }
}

#[test]
fn what_one_network_taught_is_forgotten_alone() {
    let mut window = Window::new(WindowLimits::default(), 1);
    for time in 0..100 {
        let mut row = row(time, time, 443);
        row.network_hash = (time % 2) as u32;
        window.push(row);
    }
    assert_eq!(window.forget_before(60, Some(1)), 30);
    assert_eq!((window.len(), window.networks()), (70, 2));
    assert!(
        window
            .rows()
            .iter()
            .all(|row| row.network_hash == 0 || row.time_ns >= 60)
    );
    assert_eq!(window.forget_before(60, None), 30);
    assert_eq!(window.len(), 40);
}
