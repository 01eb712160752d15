//! What happens by the clock: expired keys are swept, memory is defragmented, rates and the memory's peak sampled.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::defrag::Defrag;
use crate::clock;
use crate::config::Id;
use crate::engine::{Worker, give_leases_back};
use crate::instance::Instance;
use crate::tiers::local::{Effects, LockPlan, ShardHeld, View, memory};

/// How often rates are taken.
const RATES_EVERY: Duration = Duration::from_secs(1);
/// How often the keys' prefixes are counted.
const GROWTH_EVERY: Duration = Duration::from_secs(60);

/// What the process takes without any data.
const PROGRAM: usize = 8 << 20;

/// Runs for as long as the server does.
pub async fn run(instance: &'static Instance) {
    let mut worker = Worker::new(instance);
    let (mut rates_taken, mut growth_seen) = (clock::monotonic(), None);
    let mut defrag = Defrag::default();
    for tick in 0.. {
        // `hz` ticks a second.
        let length = Duration::from_secs(1) / instance.settings.int(Id::Hz) as u32;
        tokio::time::sleep(length).await;
        let now = clock::monotonic();
        if instance.active_expire.load(Relaxed) && !instance.pause.is_on(clock::wall_ms()) {
            let (shards, begin) = (instance.keyspace.shards(), clock::ticks());
            // Every shard is swept once in so many ticks: in 4 at the least effort, in each at the greatest.
            let sweep_ticks = 4 - (instance.settings.int(Id::ActiveExpireEffort) as usize - 1) / 3;
            for shard in (tick % sweep_ticks..shards).step_by(sweep_ticks) {
                worker.sweep(shard);
            }
            instance.note_latency("expire-cycle", clock::nanos_between(begin, clock::ticks()) / 1_000_000);
        }
        defrag.run(instance, length).await;
        give_back(instance);
        tokio::spawn(give_leases_back(instance, false));
        instance.telemetry.peak_memory.fetch_max(memory::used() as u64, Relaxed);
        if growth_seen.is_none_or(|seen| now - seen >= GROWTH_EVERY) {
            observe_growth(instance);
            growth_seen = Some(now);
        }
        if now - rates_taken >= RATES_EVERY {
            instance.telemetry.sample_rates(now - rates_taken);
            instance.snapshots.follow_schedule();
            rates_taken = now;
        }
    }
}

fn observe_growth(instance: &'static Instance) {
    let (now_ms, mut effects) = (clock::wall_ms(), Effects::default());
    let observed = catch_unwind(AssertUnwindSafe(|| {
        if let Some(mut view) = View::acquire(&instance.keyspace, &LockPlan::Each, 0, now_ms, &mut effects) {
            instance.growth.lock().observe(&mut view, now_ms / 1000);
        }
    }));
    if let Err(cause) = observed
        && !cause.is::<ShardHeld>()
    {
        resume_unwind(cause);
    }
}

/// Gives free pages back to the system at once when they make the process outgrow `maxmemory`: the allocator itself
/// keeps them for seconds, in case they are needed again.
fn give_back(instance: &Instance) {
    let limit = instance.settings.int(Id::Maxmemory) as usize;
    if limit == 0 {
        return;
    }
    let most = limit / 8 * 9 + PROGRAM;
    if memory::resident() > most
        && memory::used() < most
        && let Err(error) = memory::purge()
    {
        tracing::debug!(%error, "free pages cannot be given back");
    }
}
