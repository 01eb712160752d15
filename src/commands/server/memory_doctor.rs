//! What `MEMORY DOCTOR` says: where memory goes that nobody may want it to go.

use std::sync::atomic::Ordering::Relaxed;

use super::super::spec::Context;
use crate::clock;
use crate::config::{Id, Policy};
use crate::growth::Growth;
use crate::tiers::local::memory;

/// Below this nothing is worth a word.
const LITTLE: usize = 5 << 20;
/// Prefixes named at most.
const MAX_NAMED: usize = 10;

/// The report.
pub(super) fn report(context: &mut Context<'_, '_>) -> String {
    let instance = context.instance;
    let growing = {
        let mut monitor = instance.growth.lock();
        monitor.observe(context.view, clock::wall_ms() / 1000);
        monitor.growing()
    };
    let (used, resident) = (memory::used(), memory::resident());
    let peak = instance.telemetry.peak_memory.load(Relaxed) as usize;
    let mut findings: Vec<String> = growing.iter().take(MAX_NAMED).map(describe).collect();
    if used >= LITTLE {
        if peak > used + used / 2 {
            findings.push(format!(
                "The peak of {} MB is more than one and a half times what is in use now; memory that was freed may \
                 still belong to the process. MEMORY PURGE gives it back.",
                peak >> 20
            ));
        }
        if resident > used * 7 / 5 && resident > used + (10 << 20) {
            findings.push(format!(
                "The process holds {} MB for {} MB in use: the rest is fragmentation, or free but not given back.",
                resident >> 20,
                used >> 20
            ));
        }
        let limit = instance.settings.int(Id::Maxmemory) as usize;
        if limit > 0 && used > limit / 10 * 9 && instance.settings.maxmemory_policy() == Policy::Noeviction {
            findings.push(
                "Nearly all of maxmemory is in use and maxmemory-policy is noeviction: writes will soon be refused."
                    .to_owned(),
            );
        }
    }
    if findings.is_empty() {
        let found = if used < LITTLE {
            "There is too little in memory to find a problem."
        } else {
            "No problem found."
        };
        return format!("{found}\n");
    }
    let findings: String = findings.iter().map(|finding| format!(" * {finding}\n")).collect();
    format!("Found in this server:\n\n{findings}")
}

fn describe(growth: &Growth) -> String {
    let prefix = match String::from_utf8_lossy(&growth.prefix) {
        prefix if prefix.is_empty() => "Keys without a prefix".to_owned(),
        prefix => format!("Keys '{prefix}*'"),
    };
    format!(
        "{prefix} only grow in number and never expire: about {} now, {} {} seconds ago, {} KB. Set a time to live, or \
         maxmemory with a policy that evicts them.",
        growth.keys,
        growth.keys_before,
        growth.seconds,
        growth.bytes >> 10
    )
}
