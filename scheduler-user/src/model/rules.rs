//! Paths through a tree, and rules that a person can read.

use std::fmt::{self, Display};

use scheduler_common::{
    features::{Feature, Features},
    tree::TARGET_FLOOR_BYTES,
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeStruct as _,
};

use super::{Model, Split, Tree, TreeNode, human_bytes};

/// The largest value of a feature.
const MAX: i64 = u32::MAX as i64;

/// Values of one feature that a rule holds for, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The feature.
    pub feature: Feature,
    /// Smallest value.
    pub low: i64,
    /// Largest value; below the smallest one where no value fits.
    pub high: i64,
}

/// A leaf and what leads to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Index of the tree.
    pub tree: usize,
    /// Index of the leaf.
    pub leaf: usize,
    /// The leaf.
    pub node: TreeNode,
    /// Conditions, all of which hold; in the order of the features.
    pub ranges: Vec<Range>,
}

/// A question on the way to a leaf, and its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// The question.
    pub split: Split,
    /// Whether the value is above.
    pub above: bool,
}

impl Model {
    /// All leaves of all trees, each with the conditions that lead to it.
    pub fn rules(&self) -> Vec<Rule> {
        let trees = self.trees.iter().enumerate();
        trees.flat_map(|(index, tree)| tree.rules(index)).collect()
    }

    /// Bytes to come that a leaf stands for on its own; `None` where leaves correct one another.
    pub fn leaf_bytes(&self, leaf: &TreeNode) -> Option<f64> {
        self.combine.is_mean().then(|| bytes_of(leaf.output))
    }

    /// The same in words.
    pub fn leaf_text(&self, leaf: &TreeNode) -> String {
        let factor = || format!("×{:.2}", leaf.output.exp2());
        self.leaf_bytes(leaf).map_or_else(factor, human_bytes)
    }
}

impl Tree {
    fn rules(&self, tree: usize) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut open: Vec<(usize, Vec<Turn>)> = vec![(0, Vec::new())];
        while let Some((index, turns)) = open.pop() {
            let Some(node) = self.nodes.get(index).copied() else {
                continue;
            };
            let Some(split) = node.split else {
                let ranges = ranges(&turns);
                // A path that no value can take is no rule.
                if ranges.iter().all(|range| range.low <= range.high) {
                    rules.push(Rule {
                        tree,
                        leaf: index,
                        node,
                        ranges,
                    });
                }
                continue;
            };
            // The lower side last, so that it comes out first.
            for (above, child) in [(true, split.above), (false, split.at_most)] {
                let turn = Turn { split, above };
                let turns = turns.iter().copied().chain([turn]).collect();
                open.push((child as usize, turns));
            }
        }
        rules
    }

    /// The turns that these features take, and the leaf at their end; the tree must have passed the check.
    pub fn turns(&self, features: &Features) -> (Vec<Turn>, usize) {
        let mut turns = Vec::new();
        let mut index = 0;
        while let Some(split) = self.nodes.get(index).and_then(|node| node.split) {
            let value = features
                .get(usize::from(split.feature))
                .copied()
                .unwrap_or(0);
            let above = f64::from(value) > split.value;
            turns.push(Turn { split, above });
            index = if above { split.above } else { split.at_most } as usize;
            if turns.len() > self.nodes.len() {
                break;
            }
        }
        (turns, index)
    }
}

impl Turn {
    /// What the answer says of the feature.
    pub fn range(&self) -> Option<Range> {
        let feature = *Feature::ALL.get(usize::from(self.split.feature))?;
        // Whole numbers: at most 4.5 is at most 4. A cast of a float saturates.
        let value = self.split.value.floor() as i64;
        let (low, high) = if self.above {
            (value.clamp(-1, MAX) + 1, MAX)
        } else {
            (0, value.clamp(-1, MAX))
        };
        Some(Range { feature, low, high })
    }
}

/// Joins the answers about each feature into one condition.
pub fn ranges(turns: &[Turn]) -> Vec<Range> {
    let mut joined: Vec<Range> = Vec::new();
    for range in turns.iter().filter_map(Turn::range) {
        match joined.iter_mut().find(|it| it.feature == range.feature) {
            Some(known) => {
                known.low = known.low.max(range.low);
                known.high = known.high.min(range.high);
            }
            None => joined.push(range),
        }
    }
    joined.sort_by_key(|range| range.feature as u8);
    joined
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Range", 5)?;
        fields.serialize_field("feature", self.feature.name())?;
        fields.serialize_field("unit", self.feature.unit())?;
        fields.serialize_field("low", &self.low)?;
        fields.serialize_field("high", &(self.high < MAX).then_some(self.high))?;
        fields.serialize_field("text", &self.to_string())?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What is written beside follows from this.
        #[derive(Deserialize)]
        struct Written {
            feature: String,
            low: i64,
            high: Option<i64>,
        }
        let Written { feature, low, high } = Written::deserialize(deserializer)?;
        let known = Feature::ALL.iter().find(|known| known.name() == feature);
        let unknown = || D::Error::custom(format!("no feature is called {feature:?}"));
        Ok(Self {
            feature: *known.ok_or_else(unknown)?,
            low,
            high: high.unwrap_or(MAX),
        })
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feature, low, high } = *self;
        let single = (low == high).then_some(low as u32);
        let named = match (feature, single) {
            (Feature::FromService, _) if low == 1 => Some("sent by the service".to_owned()),
            (Feature::FromService, _) if high == 0 => Some("sent by the client".to_owned()),
            (Feature::ServicePort, Some(port)) => Some(format!("service {}", service(port))),
            (Feature::Protocol, Some(number)) => Some(protocol(number)),
            _ => None,
        };
        if let Some(named) = named {
            return f.write_str(&named);
        }
        let label = label(feature);
        let value = |value: i64| human(feature, value as u32);
        match (low, high) {
            _ if single.is_some() => write!(f, "{label} {}", value(low)),
            (0, MAX) => write!(f, "any {label}"),
            (0, _) => write!(f, "{label} at most {}", value(high)),
            (_, MAX) => write!(f, "{label} above {}", value(low - 1)),
            _ => write!(f, "{label} {} to {}", value(low), value(high)),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ranges.is_empty() {
            return f.write_str("always");
        }
        for (index, range) in self.ranges.iter().enumerate() {
            write!(f, "{}{range}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// The feature in words, without its unit.
pub fn label(feature: Feature) -> &'static str {
    match feature {
        Feature::ServicePort => "service port",
        Feature::FromService => "sender",
        Feature::Protocol => "protocol",
        Feature::PacketBytes => "packet",
        Feature::Segments => "segments in the packet",
        Feature::TcpFlags => "flags",
        Feature::MessagePackets => "packets so far",
        Feature::MessageBytes => "sent so far",
        Feature::MessageIndex => "number of the message",
        Feature::RequestBytes => "request",
        Feature::RequestPackets => "packets of the request",
        Feature::PreviousBytes => "message before",
        Feature::TurnaroundUs => "turn-around",
        Feature::GapUs => "gap",
        Feature::FlowAgeUs => "age of the flow",
        Feature::ServiceLog2Q8 => "mean of the service",
        Feature::PeerLog2Q8 => "mean with this network",
        Feature::SocketUnsentBytes => "written behind the packet",
        Feature::SocketWindowPackets => "congestion window",
        Feature::SocketRttUs => "round trip",
    }
}

/// A value with the unit that a person reads.
pub fn human(feature: Feature, value: u32) -> String {
    match (feature, feature.unit()) {
        (Feature::ServicePort, _) => service(value),
        (Feature::ServiceLog2Q8 | Feature::PeerLog2Q8, _) => {
            human_bytes((f64::from(value) / 256.0).exp2() - 1.0)
        }
        (Feature::TcpFlags, _) => format!("{value:#04x}"),
        (_, "bytes") => human_bytes(f64::from(value)),
        (_, "us") => human_time(f64::from(value)),
        // The label says that packets are counted.
        (Feature::SocketWindowPackets, unit) => format!("{value} {unit}"),
        (_, "" | "packets") => value.to_string(),
        (_, unit) => format!("{value} {unit}"),
    }
}

/// Microseconds with a unit, two or three digits.
pub fn human_time(us: f64) -> String {
    let (value, unit) = match us {
        _ if us < 999.5 => (us, "us"),
        _ if us < 999_500.0 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let decimals = usize::from(value < 9.95 && unit != "us");
    format!("{value:.decimals$} {unit}")
}

/// A port with the name that IANA gives it, for the well-known ones.
pub fn service(port: u32) -> String {
    match SERVICES.iter().find(|(number, _)| *number == port) {
        Some((_, name)) => format!("{port} ({name})"),
        None => port.to_string(),
    }
}

/// IANA's names of ports that are met often; not read from a file, for minimal systems have none.
const SERVICES: &[(u32, &str)] = &[
    (20, "ftp-data"),
    (21, "ftp"),
    (22, "ssh"),
    (25, "smtp"),
    (53, "domain"),
    (67, "bootps"),
    (80, "http"),
    (110, "pop3"),
    (123, "ntp"),
    (143, "imap"),
    (161, "snmp"),
    (179, "bgp"),
    (389, "ldap"),
    (443, "https"),
    (445, "microsoft-ds"),
    (465, "submissions"),
    (514, "shell"),
    (587, "submission"),
    (631, "ipp"),
    (636, "ldaps"),
    (853, "domain-s"),
    (873, "rsync"),
    (993, "imaps"),
    (995, "pop3s"),
    (1194, "openvpn"),
    (1883, "mqtt"),
    (2049, "nfs"),
    (3260, "iscsi-target"),
    (3306, "mysql"),
    (3389, "ms-wbt-server"),
    (5060, "sip"),
    (5201, "iperf3"),
    (5353, "mdns"),
    (5432, "postgresql"),
    (5672, "amqp"),
    (6379, "redis"),
    (8080, "http-alt"),
    (8443, "pcsync-https"),
    (9092, "XmlIpcRegSvc"),
];

/// An IP protocol by its name.
pub fn protocol(number: u32) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// The inverse of a row's target: log2(floor + bytes) → bytes.
pub fn bytes_of(log2: f64) -> f64 {
    (log2.exp2() - f64::from(TARGET_FLOOR_BYTES)).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::arbitrary, *};

    fn range(feature: Feature, low: i64, high: i64) -> String {
        Range { feature, low, high }.to_string()
    }

    #[test]
    fn conditions_read_as_words() {
        let max = MAX;
        assert_eq!(range(Feature::ServicePort, 443, 443), "service 443 (https)");
        assert_eq!(
            range(Feature::ServicePort, 0, 1023),
            "service port at most 1023"
        );
        assert_eq!(
            range(Feature::ServicePort, 81, 443),
            "service port 81 to 443 (https)"
        );
        assert_eq!(range(Feature::FromService, 1, max), "sent by the service");
        assert_eq!(range(Feature::FromService, 0, 0), "sent by the client");
        assert_eq!(range(Feature::Protocol, 17, 17), "UDP");
        assert_eq!(range(Feature::Protocol, 7, max), "protocol above 6");
        assert_eq!(
            range(Feature::RequestBytes, 301, max),
            "request above 300 B"
        );
        assert_eq!(
            range(Feature::TurnaroundUs, 0, 1500),
            "turn-around at most 1.5 ms"
        );
        assert_eq!(
            range(Feature::ServiceLog2Q8, 0, 10 << 8),
            "mean of the service at most 1.0 kB"
        );
    }

    #[test]
    fn answers_about_one_feature_become_one_condition() {
        let turn = |feature: Feature, value, above| Turn {
            split: Split {
                feature: feature as u8,
                value,
                at_most: 1,
                above: 2,
            },
            above,
        };
        let turns = [
            turn(Feature::RequestBytes, 300.5, true),
            turn(Feature::ServicePort, 442.5, true),
            turn(Feature::ServicePort, 443.5, false),
            turn(Feature::RequestBytes, 200.5, true),
        ];
        let text: Vec<String> = ranges(&turns).iter().map(Range::to_string).collect();
        assert_eq!(text, ["service 443 (https)", "request above 300 B"]);
    }

    proptest! {
        /// Fails if a rule says other things than the tree does.
        #[test]
        fn exactly_one_rule_of_a_tree_holds_and_it_is_that_of_the_leaf(
            tree in arbitrary::tree(),
            features in arbitrary::features(),
        ) {
            let rules = tree.rules(0);
            let holds = |rule: &&Rule| rule.ranges.iter().all(|range| {
                let value = i64::from(features[range.feature as usize]);
                (range.low..=range.high).contains(&value)
            });
            let leaves: Vec<usize> = rules.iter().filter(holds).map(|rule| rule.leaf).collect();
            let (turns, leaf) = tree.turns(&features);
            prop_assert_eq!(Some(leaf), tree.leaf_index(&features));
            prop_assert!(turns.len() <= tree.depth() as usize);
            prop_assert_eq!(leaves, vec![leaf]);
        }
    }
}
