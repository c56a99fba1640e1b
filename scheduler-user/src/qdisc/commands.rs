//! The hierarchies in tc's words: what treeline says to the kernel, for people.

use super::{
    MAX_BANDS, Plan, RootChoice, class_handle, format_rate,
    htb::{self, QUANTUM_BYTES, RATE_TO_QUANTUM, ROOT_HANDLE},
    netlink::handle_text,
    sorter::{LIMIT_PACKETS, LOWEST_QUANTUM_BYTES, PRIORITIES, STRICT_BANDS},
};

/// Commands that make the root which is wanted on a device whose root is the kernel's own; none for one that is kept.
///
/// `leaf` is the kind of the bands' queues.
pub fn make(device: &str, root: RootChoice, plan: &Plan, leaf: &str) -> Vec<String> {
    let mut commands: Vec<String> = root_command(device, root).into_iter().collect();
    let mut limit_packets = LIMIT_PACKETS;
    if root == RootChoice::Htb {
        commands.extend(classes(device, "add", plan));
        limit_packets = plan.limit_packets;
    }
    if root == RootChoice::Htb || root.has_classes() {
        commands.extend((0..MAX_BANDS).map(|band| {
            let parent = handle_text(class_handle(band));
            let limit = if leaf == "pfifo" {
                format!(" limit {limit_packets}")
            } else {
                String::new()
            };
            format!("tc qdisc add dev {device} parent {parent} {leaf}{limit}")
        }));
    }
    commands
}

/// Commands that bring an HTB of ours to the plan's rate, its queues and what waits in them untouched.
pub fn change(device: &str, plan: &Plan) -> Vec<String> {
    classes(device, "change", plan)
}

/// The command that takes our root away.
pub fn remove(device: &str) -> String {
    format!("tc qdisc del dev {device} root")
}

fn root_command(device: &str, root: RootChoice) -> Option<String> {
    let zeros = vec!["0"; PRIORITIES].join(" ");
    let options = match root {
        RootChoice::Htb => {
            let default = class_handle(0) & 0xffff;
            format!("htb default {default:x} r2q {RATE_TO_QUANTUM}")
        }
        RootChoice::Prio => format!("prio bands {MAX_BANDS} priomap {zeros}"),
        RootChoice::Ets => {
            let quanta: Vec<String> = (STRICT_BANDS..MAX_BANDS)
                .rev()
                .map(|band| (LOWEST_QUANTUM_BYTES << (band - STRICT_BANDS)).to_string())
                .collect();
            let quanta = quanta.join(" ");
            format!("ets bands {MAX_BANDS} strict {STRICT_BANDS} quanta {quanta} priomap {zeros}")
        }
        RootChoice::Fq => "fq".to_owned(),
        RootChoice::Keep => return None,
    };
    let handle = handle_text(ROOT_HANDLE);
    Some(format!(
        "tc qdisc add dev {device} root handle {handle} {options}"
    ))
}

fn classes(device: &str, verb: &str, plan: &Plan) -> Vec<String> {
    let rate = format_rate(plan.rate_bps);
    let burst_bytes = htb::burst_bytes(plan.rate_bps);
    let (root, link) = (handle_text(ROOT_HANDLE), handle_text(htb::LINK_CLASS));
    let mut commands = vec![format!(
        "tc class {verb} dev {device} parent {root} classid {link} htb rate {rate} ceil {rate} burst {burst_bytes}b \
         cburst {burst_bytes}b quantum {QUANTUM_BYTES} prio 0"
    )];
    commands.extend((0..plan.bands).map(|band| {
        let class = handle_text(class_handle(band));
        let guarantee = format_rate(plan.rate_of(band));
        let guaranteed_burst_bytes = htb::guaranteed_burst_bytes(plan, band);
        format!(
            "tc class {verb} dev {device} parent {link} classid {class} htb rate {guarantee} ceil {rate} burst \
             {guaranteed_burst_bytes}b cburst {burst_bytes}b quantum {QUANTUM_BYTES} prio {band}"
        )
    }));
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_a_root_nine_classes_and_eight_queues() {
        let plan = Plan::new(95_000_000);
        let commands = make("eth0", RootChoice::Htb, &plan, "pfifo");
        assert_eq!(commands.len(), 1 + 9 + 8);
        assert_eq!(
            commands[0],
            "tc qdisc add dev eth0 root handle 7e: htb default 1 r2q 10"
        );
        assert!(
            commands[1].contains("classid 7e:ff htb rate 95mbit"),
            "{}",
            commands[1]
        );
        // The top band has what the others leave.
        for (command, class) in [
            (2, "classid 7e:1 htb rate 92981.25kbit"),
            (3, "classid 7e:2 htb rate 950kbit"),
            (4, "classid 7e:3 htb rate 23.75kbit"),
            (9, "classid 7e:8 htb rate 950kbit"),
        ] {
            assert!(commands[command].contains(class), "{}", commands[command]);
        }
        assert_eq!(
            commands[17],
            "tc qdisc add dev eth0 parent 7e:8 pfifo limit 237"
        );
        assert_eq!(change("eth0", &plan).len(), 9);
    }

    #[test]
    fn what_is_kept_needs_no_command() {
        let plan = Plan::without_rate();
        assert!(make("eth0", RootChoice::Keep, &plan, "pfifo_fast").is_empty());
        assert_eq!(make("eth0", RootChoice::Fq, &plan, "fq").len(), 1);
        let ets = make("eth0", RootChoice::Ets, &plan, "fq_codel");
        assert!(
            ets[0].contains("quanta 48448 24224 12112 6056 3028 1514"),
            "{}",
            ets[0]
        );
        assert_eq!(ets.len(), 9);
    }
}
