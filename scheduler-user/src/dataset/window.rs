//! The recent rows that training sees, a fair share per service.

use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{features::Feature, sample::Hook};

use super::Row;

/// From here up a port is most likely a client's own (Linux' default local range starts here):
/// such ports share one place, or a scan of ports would be thousands of services.
const FIRST_EPHEMERAL_PORT: u32 = 32_768;

/// Size of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Rows kept at most.
    pub rows: usize,
    /// Age of the oldest row.
    pub age_ns: u64,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self {
            rows: 50_000,
            age_ns: 600_000_000_000,
        }
    }
}

/// Rows of the last minutes, bounded in number and in age.
///
/// While there is room every row is kept. After that each service may fill an equal share; above
/// its share a service replaces rows of its own, chosen at random.
#[derive(Debug)]
pub struct Window {
    limits: WindowLimits,
    by_service: BTreeMap<u32, Vec<Row>>,
    len: usize,
    newest_ns: u64,
    expired_at_ns: u64,
    random: StdRng,
}

impl Window {
    /// An empty window; `seed` decides which rows are replaced.
    pub fn new(limits: WindowLimits, seed: u64) -> Self {
        Self {
            limits,
            by_service: BTreeMap::new(),
            len: 0,
            newest_ns: 0,
            expired_at_ns: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Takes a row in; one of the ingress program is left out, because the tree acts on egress.
    pub fn push(&mut self, row: Row) {
        if row.hook != Hook::Egress || self.limits.rows == 0 {
            return;
        }
        self.newest_ns = self.newest_ns.max(row.time_ns);
        if row.time_ns < self.oldest_kept_ns() {
            return;
        }
        // A sixteenth of the age late at most, so that a row costs constant time.
        if self.newest_ns - self.expired_at_ns > self.limits.age_ns / 16 {
            self.expire();
        }
        let service = service_of(&row);
        if self.len < self.limits.rows {
            self.by_service.entry(service).or_default().push(row);
            self.len += 1;
            return;
        }
        self.replace(service, row);
    }

    /// The rows in order of time.
    pub fn rows(&self) -> Vec<Row> {
        let oldest_kept_ns = self.oldest_kept_ns();
        let mut rows: Vec<Row> = self
            .by_service
            .values()
            .flatten()
            .filter(|row| row.time_ns >= oldest_kept_ns)
            .copied()
            .collect();
        // The whole key, so that the order does not hang on which row replaced which.
        rows.sort_by_key(|row| (row.time_ns, row.flow_hash, row.message, row.bytes_at));
        rows
    }

    /// Rows held; some may be about to expire.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no row is held.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Services that have rows here; ports of clients count as one.
    pub fn services(&self) -> usize {
        self.by_service.len()
    }

    /// Forgets everything, for instance after the programs were loaded anew.
    pub fn clear(&mut self) {
        self.by_service.clear();
        self.len = 0;
    }

    fn replace(&mut self, service: u32, row: Row) {
        let own = self.by_service.get(&service).map_or(0, Vec::len);
        let known = self.by_service.len() + usize::from(own == 0);
        let share = (self.limits.rows / known).max(1);
        let victim = if own >= share {
            Some(service)
        } else {
            self.largest_service()
        };
        let Some((victim, rows)) = victim.and_then(|v| Some((v, self.by_service.get_mut(&v)?)))
        else {
            return;
        };
        let place = self.random.random_range(0..rows.len());
        rows.swap_remove(place);
        if rows.is_empty() {
            self.by_service.remove(&victim);
        }
        self.by_service.entry(service).or_default().push(row);
    }

    fn largest_service(&self) -> Option<u32> {
        self.by_service
            .iter()
            .max_by_key(|(_, rows)| rows.len())
            .map(|(service, _)| *service)
    }

    fn expire(&mut self) {
        let oldest_kept_ns = self.oldest_kept_ns();
        self.by_service.retain(|_, rows| {
            rows.retain(|row| row.time_ns >= oldest_kept_ns);
            !rows.is_empty()
        });
        self.len = self.by_service.values().map(Vec::len).sum();
        self.expired_at_ns = self.newest_ns;
    }

    const fn oldest_kept_ns(&self) -> u64 {
        self.newest_ns.saturating_sub(self.limits.age_ns)
    }
}

fn service_of(row: &Row) -> u32 {
    row.feature(Feature::ServicePort).min(FIRST_EPHEMERAL_PORT)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::row, *};

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
}
