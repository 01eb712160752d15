//! What happens by the clock: expired keys are swept, rates and the memory's peak sampled.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock;
use crate::config::Id;
use crate::engine::Worker;
use crate::instance::Instance;
use crate::tiers::local::{Effects, LockPlan, ShardHeld, View, memory};

/// The time between two ticks.
const TICK: Duration = Duration::from_millis(100);
/// Every shard is swept once in so many ticks.
const SWEEP_TICKS: usize = 4;

/// The keys' prefixes are counted once in so many ticks.
const GROWTH_TICKS: usize = 600;

/// What the process takes without any data.
const PROGRAM: usize = 8 << 20;

/// Runs for as long as the server does.
pub async fn run(instance: &'static Instance) {
    let mut worker = Worker::new(instance);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = clock::monotonic();
    for tick in 0.. {
        ticks.tick().await;
        if instance.active_expire.load(Relaxed) && !instance.pause.is_on(clock::wall_ms()) {
            let (shards, begin) = (instance.keyspace.shards(), clock::ticks());
            for shard in (tick % SWEEP_TICKS..shards).step_by(SWEEP_TICKS) {
                worker.sweep(shard);
            }
            instance.note_latency("expire-cycle", clock::nanos_between(begin, clock::ticks()) / 1_000_000);
        }
        give_back(instance);
        instance.telemetry.peak_memory.fetch_max(memory::used() as u64, Relaxed);
        if tick % GROWTH_TICKS == 0 {
            observe_growth(instance);
        }
        if tick % 10 == 0 {
            let now = clock::monotonic();
            instance.telemetry.sample_rates(now - last);
            last = now;
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
