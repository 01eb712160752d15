//! The upstream tier (L2): a Redis that is the authority, shared by all hosts, and a coherent near cache of it.
//!
//! Two connections are shared by all clients: one speaks RESP3 and is told by upstream of every change of a key that was
//! read through it; the other speaks RESP2, for replies whose form in RESP2 is not known here. Both, and the clock-driven
//! work, live on one thread; clients' requests come to them by way of buffers, from whatever thread. If there is only one
//! worker thread, it is that one, and no request or reply changes threads. What goes by another connection than the first
//! counts as a write of its keys, so that no client sees a key go back in time.

mod broadcast;
mod catalogue;
mod cluster;
mod coherence;
mod connect;
mod dedicated;
mod expected;
mod frame;
mod gather;
mod invalidate;
mod link;
mod master;
mod near;
mod prefixes;
mod records;
mod resp2;
mod scripted;
mod sentinel;
mod socket;
mod statistics;
mod stream;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

pub use broadcast::Broadcast;
pub use catalogue::{Catalogue, ForeignCommand};
pub use cluster::{Again, Cluster, Node, Redirection, Target, is_refused, resend, slot_of};
pub use connect::{Backoff, ConnectError, Connection, encode};
pub use dedicated::{Dedicated, Pool};
pub use expected::{Expected, Form, Maker, Writing};
pub use frame::{elements, integer, is_error, scripted, text};
pub use gather::{Failure, Gather, Outcome, Ticket};
pub use invalidate::invalidate;
pub use link::{About, Link, now_ms};
pub use near::{Filling, Found, KeyReport, Miss, Near, Request};
pub use prefixes::prefix_of;
pub use resp2::{Rewrite, rewrite};
pub use scripted::{Run, Script};
pub use statistics::{Statistics, count};
pub use stream::Stream;
pub use watched::{Call, Watched};

use crate::config::upstream::{KeyRule, KeyTier, OnFailure, UpstreamConfig};
use crate::types::glob;

/// A tick of what happens by the clock.
const TICK: Duration = Duration::from_millis(100);

/// The Redis behind this server.
pub struct Upstream {
    /// How it is reached, and for how long replies are kept.
    pub config: Arc<UpstreamConfig>,
    /// Replies that are kept.
    pub near: Arc<Near>,
    /// The connection that tells of changes; RESP3.
    pub tracked: Arc<Link>,
    /// The other one; RESP2.
    pub plain: Arc<Link>,
    /// Connections of one client's own.
    pub pool: Arc<Pool>,
    /// The connection for those who want to hear of all changes.
    pub broadcast: Arc<Broadcast>,
    /// The nodes, if it is a cluster; then the connections above are not made.
    pub cluster: Option<Arc<Cluster>>,
    /// What is counted.
    pub statistics: Arc<Statistics>,
    keys: Vec<KeyRule>,
}

impl Upstream {
    /// Sets the tier up; nothing is connected before [`Upstream::run`].
    ///
    /// # Errors
    /// If the authorities' file cannot be read.
    pub fn new(config: &UpstreamConfig, keys: &[KeyRule]) -> std::io::Result<Self> {
        let mut config = config.clone();
        if config.endpoint.cluster.is_some() {
            // See `cluster`.
            config.negative_ttl = Duration::ZERO;
        }
        let config = Arc::new(config);
        let statistics = Arc::new(Statistics::default());
        let stale = if config.on_failure == OnFailure::Stale { config.stale_ttl } else { Duration::ZERO };
        let millis = |time: Duration| time.as_millis() as u64;
        let near =
            Near::new(millis(config.heartbeat), millis(stale), config.early_refresh, statistics.clone());
        let near = Arc::new(near);
        let dialer = socket::Dialer::new(&config, Arc::new(master::Master::new(near.clone())))?;
        let link = |is_tracked| {
            Arc::new(Link::new(is_tracked, config.clone(), dialer.clone(), near.clone(), statistics.clone()))
        };
        let cluster = config.endpoint.cluster.clone().map(|seeds| {
            let (near, statistics) = (near.clone(), statistics.clone());
            Arc::new(Cluster::new(seeds, config.clone(), dialer.clone(), near, statistics))
        });
        Ok(Self {
            cluster,
            broadcast: Arc::new(Broadcast::new(
                config.clone(),
                dialer.clone(),
                near.clone(),
                statistics.clone(),
            )),
            tracked: link(true),
            plain: link(false),
            pool: Arc::new(Pool::new(
                config.connections - 2,
                dialer.clone(),
                near.clone(),
                config.clone(),
                statistics.clone(),
            )),
            near,
            config,
            statistics,
            keys: keys.to_vec(),
        })
    }

    /// Runs the shared connections on a thread of their own.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let upstream = self.clone();
        std::thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || runtime.block_on(upstream.run()))?;
        Ok(())
    }

    /// Runs the shared connections on this thread's runtime.
    pub async fn run(self: Arc<Self>) {
        if !self.config.tracking {
            tracing::warn!(
                "upstream does not tell of changes (tracking = \"off\"): what others change is served for up to {:?}",
                self.config.near_cache_ttl
            );
        }
        if let Some(cluster) = &self.cluster {
            tokio::spawn(cluster.clone().run());
        } else {
            tokio::spawn(self.tracked.clone().run());
            tokio::spawn(self.plain.clone().run());
            tokio::spawn(self.broadcast.clone().run());
        }
        self.sweep().await;
    }

    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0.. {
            ticks.tick().await;
            // Each shard about once in two seconds.
            for shard in (turn % 16..Near::shards()).step_by(16) {
                self.near.sweep(shard, now_ms());
            }
        }
    }

    /// What upstream says of itself.
    pub fn about(&self) -> About {
        let Some(cluster) = &self.cluster else { return self.tracked.about() };
        let masters = cluster.masters();
        let away = masters.iter().find(|node| !node.tracked.is_up()).or(masters.first());
        let up = masters.iter().find(|node| node.tracked.is_up()).or(masters.first());
        let about = up.map_or_else(|| self.tracked.about(), |node| node.tracked.about());
        let fault = away.and_then(|node| node.tracked.about().fault).or_else(|| cluster.fault());
        About { databases: 1, fault, ..about }
    }

    /// Whether it is connected: all of its masters, if it is a cluster.
    pub fn is_up(&self) -> bool {
        let Some(cluster) = &self.cluster else { return self.tracked.is_up() };
        let masters = cluster.masters();
        !masters.is_empty() && masters.iter().all(|node| node.tracked.is_up())
    }

    /// Connections of a client's own, to the node that has the slot, or any.
    pub fn pool(&self, slot: Option<u16>) -> Result<Arc<Pool>, ConnectError> {
        let Some(cluster) = &self.cluster else { return Ok(self.pool.clone()) };
        let node = cluster.at(&slot.map_or(Target::Any, Target::Slot));
        node.map(|node| node.pool.clone()).ok_or_else(|| {
            cluster.want_refresh();
            let fault = cluster.fault();
            ConnectError::Refused(fault.unwrap_or_else(|| "no node is known that has the slot".to_owned()))
        })
    }

    /// Whether some keys are exceptions.
    pub fn has_rules(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Where a key lives, if not upstream and here.
    #[inline]
    pub fn tier_of(&self, key: &[u8]) -> Option<KeyTier> {
        if self.keys.is_empty() {
            return None;
        }
        let rule = self.keys.iter().find(|rule| glob::matches(rule.pattern.as_bytes(), key));
        rule.map(|rule| rule.tier)
    }

    /// Marks keys as being written until what is returned is dropped.
    pub fn writing(&self, keys: SmallVec<[(u64, Box<[u8]>); 1]>) -> Writing {
        Writing::to(&self.near, keys)
    }

    /// The same for every key.
    pub fn writing_all(&self) -> Writing {
        Writing::to_all(&self.near)
    }
}
