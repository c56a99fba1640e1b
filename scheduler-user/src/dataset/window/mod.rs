//! The recent rows that training sees; no service and no network fills them alone.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{features::Feature, sample::Hook};

mod heeded;
mod standing;

pub use self::heeded::Heeded;
use self::{
    heeded::{thinned, with_newcomers},
    standing::Standing,
};
use super::Row;

/// From here up a port is most likely a client's own (Linux' default local range starts here):
/// such ports share one place, or a scan of ports would be thousands of services.
const FIRST_EPHEMERAL_PORT: u32 = 32_768;

/// Where newcomers usually bring so much, they judge too: nobody else could speak for them.
const HEARD_SHARE: f64 = 0.5;

const TCP: u32 = 6;
const UDP: u32 = 17;

/// Size of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowLimits {
    /// Rows kept at most.
    pub rows: usize,
    /// Age of the oldest row.
    pub age_ns: u64,
    /// Share of it that one far network may have where others compete for it.
    pub network_share: f64,
    /// Rows that a network may have in any case: enough to learn from.
    pub undisputed_rows: usize,
    /// Share that all networks without standing may have together, where they do not usually bring more.
    pub newcomer_share: f64,
    /// For how long a network has no standing at least.
    pub newcomer_ns: u64,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self {
            rows: 50_000,
            age_ns: 600_000_000_000,
            network_share: 0.25,
            undisputed_rows: 5000,
            newcomer_share: 0.1,
            newcomer_ns: 300_000_000_000,
        }
    }
}

/// Rows of the last minutes, bounded in number and in age.
///
/// While there is room every row is kept. A full window makes room in the largest group: in a network that has more
/// than its share of the places, else in the service that has most rows, and a service that has most itself
/// replaces its own. So whoever floods it, with one service or with one network over many, takes places from
/// nobody who has fewer.
///
/// What is learned from ([`Window::heeded`]) is bounded once more, in rows and in messages: where so many networks compete
/// that the share can be kept, one above it is thinned out at random, so that few rows of others are not drowned. Services are
/// not: a tree tells them apart, and whoever opens a thousand would thin out the rest.
#[derive(Debug)]
pub struct Window {
    limits: WindowLimits,
    rows: Vec<Placed>,
    services: Groups,
    networks: Groups,
    /// Those that were newcomers' when they came.
    newcomers: Groups,
    standing: Standing,
    newest_ns: u64,
    expired_at_ns: u64,
    random: StdRng,
}

/// A row, and where its groups list it.
#[derive(Clone, Copy, Debug)]
struct Placed {
    row: Row,
    in_service: usize,
    in_network: usize,
    /// Absent if it came from a network with standing.
    in_newcomers: Option<usize>,
}

/// Places of rows by what they have in common, and the groups by size.
#[derive(Debug, Default)]
struct Groups {
    places: BTreeMap<u32, Vec<usize>>,
    by_size: BTreeSet<(usize, u32)>,
    total: usize,
}

impl Groups {
    fn size(&self, key: u32) -> usize {
        self.places.get(&key).map_or(0, Vec::len)
    }

    fn largest(&self) -> Option<(usize, u32)> {
        self.by_size.last().copied()
    }

    /// Lists `place`; returns where.
    fn add(&mut self, key: u32, place: usize) -> usize {
        let places = self.places.entry(key).or_default();
        let before = places.len();
        places.push(place);
        if before > 0 {
            self.by_size.remove(&(before, key));
        }
        self.by_size.insert((before + 1, key));
        self.total += 1;
        before
    }

    /// Takes the entry at `index` off the list; returns the place that stands there now.
    fn remove(&mut self, key: u32, index: usize) -> Option<usize> {
        let places = self.places.get_mut(&key)?;
        self.by_size.remove(&(places.len(), key));
        places.swap_remove(index);
        self.total -= 1;
        let moved = places.get(index).copied();
        let left = places.len();
        if left == 0 {
            self.places.remove(&key);
        } else {
            self.by_size.insert((left, key));
        }
        moved
    }

    fn random(&self, key: u32, random: &mut StdRng) -> Option<usize> {
        let places = self.places.get(&key)?;
        Some(places[random.random_range(0..places.len())])
    }
}

impl Window {
    /// An empty window; `seed` decides which rows are replaced.
    pub fn new(limits: WindowLimits, seed: u64) -> Self {
        Self {
            limits,
            rows: Vec::new(),
            services: Groups::default(),
            networks: Groups::default(),
            newcomers: Groups::default(),
            standing: Standing::new(limits.newcomer_ns),
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
        self.standing.note(network_of(&row), row.time_ns);
        if self.rows.len() >= self.limits.rows {
            let Some(place) = self.displaced_by(&row) else {
                return;
            };
            self.take_out(place);
        }
        self.put_in(row);
    }

    /// All rows that are kept, in no order; not all of them may teach.
    pub fn held(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().map(|placed| &placed.row)
    }

    /// The rows to learn from, and which of them judge: whole messages are left out by lot where one network, or
    /// newcomers together, have more than their share.
    pub fn heeded(&self) -> Heeded {
        let oldest_kept_ns = self.oldest_kept_ns();
        let rows = self.rows.iter().map(|placed| placed.row);
        self.heeded_of(rows.filter(|row| row.time_ns >= oldest_kept_ns).collect())
    }

    /// The same of other rows than the window's.
    pub fn heeded_of(&self, rows: Vec<Row>) -> Heeded {
        let mut rows = self.without_crowds(thinned(rows, &self.limits));
        // The whole key, so that the order does not hang on which row replaced which.
        rows.sort_by_key(order);
        let networks = rows.iter().map(network_of);
        let is_mute = |network: &u32| !self.hears_newcomers() && self.is_newcomer(*network);
        let mute = networks.filter(is_mute).collect();
        Heeded::new(rows, mute)
    }

    /// The rows to learn from, in order of time.
    pub fn rows(&self) -> Vec<Row> {
        self.heeded().into_rows()
    }

    /// Whether the network has no standing, while others have.
    pub fn is_newcomer(&self, network_hash: u32) -> bool {
        self.standing.is_newcomer(network_hash)
    }

    /// How many of `rows` are of newcomers.
    pub fn of_newcomers(&self, rows: &[Row]) -> usize {
        let new = |row: &&Row| self.is_newcomer(network_of(row));
        rows.iter().filter(new).count()
    }

    /// Part of the rows that newcomers may have together: their share, or what they usually bring.
    fn newcomers_part(&self) -> f64 {
        let usual = self.standing.usual_share();
        self.limits.newcomer_share.max(usual).clamp(0.0, 1.0)
    }

    fn hears_newcomers(&self) -> bool {
        self.standing.usual_share() >= HEARD_SHARE
    }

    fn without_crowds(&self, rows: Vec<Row>) -> Vec<Row> {
        let (new, known): (Vec<Row>, Vec<Row>) =
            (rows.into_iter()).partition(|row| self.is_newcomer(row.network_hash));
        with_newcomers(known, new, self.newcomers_part())
    }

    /// Rows held; some may be about to expire, or be left out of what is learned from.
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row is held.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Services that have rows here; ports of clients count as one.
    pub fn services(&self) -> usize {
        self.services.places.len()
    }

    /// Far networks that have rows here.
    pub fn networks(&self) -> usize {
        self.networks.places.len()
    }

    /// Forgets what is older: all of it, or what is `of` one far network. Returns how many rows that were.
    pub fn forget_before(&mut self, time_ns: u64, of: Option<u32>) -> usize {
        let before = self.rows.len();
        self.keep(|row| row.time_ns >= time_ns || of.is_some_and(|of| of != network_of(row)));
        before - self.rows.len()
    }

    /// Forgets everything, for instance after the programs were loaded anew.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.services = Groups::default();
        self.networks = Groups::default();
        self.newcomers = Groups::default();
    }

    /// Which row makes room for `row`.
    fn displaced_by(&mut self, row: &Row) -> Option<usize> {
        let allowed = (self.limits.rows as f64 * self.newcomers_part()) as usize;
        let newcomers = self.newcomers.total;
        let is_newcomer = self.is_newcomer(network_of(row));
        if newcomers > allowed || is_newcomer && newcomers >= allowed.max(1) {
            let (_, largest) = self.newcomers.largest()?;
            return self.newcomers.random(largest, &mut self.random);
        }
        let networks = self.networks.places.len();
        let fair = self.limits.network_share.max(1.0 / networks.max(1) as f64);
        let allowed = (self.limits.rows as f64 * fair) as usize;
        let own = network_of(row);
        if networks > 1 && self.networks.size(own) >= allowed.max(1) {
            return self.networks.random(own, &mut self.random);
        }
        if let Some((size, network)) = self.networks.largest()
            && networks > 1
            && size > allowed
        {
            return self.networks.random(network, &mut self.random);
        }
        let own = service_of(row);
        let (size, largest) = self.services.largest()?;
        let victim = if self.services.size(own) < size {
            largest
        } else {
            own
        };
        self.services.random(victim, &mut self.random)
    }

    fn put_in(&mut self, row: Row) {
        let place = self.rows.len();
        let in_service = self.services.add(service_of(&row), place);
        let in_network = self.networks.add(network_of(&row), place);
        let is_newcomer = self.is_newcomer(network_of(&row));
        let in_newcomers = is_newcomer.then(|| self.newcomers.add(network_of(&row), place));
        self.rows.push(Placed {
            row,
            in_service,
            in_network,
            in_newcomers,
        });
    }

    fn take_out(&mut self, place: usize) {
        let Placed {
            row,
            in_service,
            in_network,
            in_newcomers,
        } = self.rows[place];
        if let Some(moved) = self.services.remove(service_of(&row), in_service) {
            self.rows[moved].in_service = in_service;
        }
        if let Some(moved) = self.networks.remove(network_of(&row), in_network) {
            self.rows[moved].in_network = in_network;
        }
        if let Some(index) = in_newcomers
            && let Some(moved) = self.newcomers.remove(network_of(&row), index)
        {
            self.rows[moved].in_newcomers = Some(index);
        }
        self.rows.swap_remove(place);
        // The row that was the last stands here now.
        if let Some(Placed {
            row,
            in_service,
            in_network,
            in_newcomers,
        }) = self.rows.get(place)
        {
            let listed = "every row is on the lists of its groups";
            let services = self.services.places.get_mut(&service_of(row));
            services.expect(listed)[*in_service] = place;
            let networks = self.networks.places.get_mut(&network_of(row));
            networks.expect(listed)[*in_network] = place;
            if let Some(index) = in_newcomers {
                let newcomers = self.newcomers.places.get_mut(&network_of(row));
                newcomers.expect(listed)[*index] = place;
            }
        }
    }

    fn expire(&mut self) {
        self.expired_at_ns = self.newest_ns;
        let oldest_kept_ns = self.oldest_kept_ns();
        self.keep(|row| row.time_ns >= oldest_kept_ns);
    }

    fn keep(&mut self, is_kept: impl Fn(&Row) -> bool) {
        if self.rows.iter().all(|of| is_kept(&of.row)) {
            return;
        }
        let rows = std::mem::take(&mut self.rows);
        self.clear();
        for Placed { row, .. } in rows {
            if is_kept(&row) {
                self.put_in(row);
            }
        }
    }

    const fn oldest_kept_ns(&self) -> u64 {
        self.newest_ns.saturating_sub(self.limits.age_ns)
    }
}

const fn order(row: &Row) -> (u64, u64, u32, u64) {
    (row.time_ns, row.flow_hash, row.message, row.bytes_at)
}

fn service_of(row: &Row) -> u32 {
    let protocol = row.feature(Feature::Protocol);
    if protocol == 0 || protocol == TCP || protocol == UDP {
        row.feature(Feature::ServicePort).min(FIRST_EPHEMERAL_PORT)
    } else {
        // An echo's identifier is no service.
        FIRST_EPHEMERAL_PORT + protocol
    }
}

const fn network_of(row: &Row) -> u32 {
    row.network_hash
}

#[cfg(test)]
mod tests;
