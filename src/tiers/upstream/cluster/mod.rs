//! A Redis Cluster as upstream: the nodes, which of them has which slot, and what follows when that changes.
//!
//! What the near cache keeps of a key was read by the tracked link of the node that had the slot. When a slot's owner is seen
//! to change, by `MOVED` or by asking, the map is changed first and then all that is kept is dropped: a read sent by the old
//! map took its lease before, and is void. That a key is absent is never kept: while a slot moves, the key may be made at
//! its new node, and the old one will not tell.
//!
//! A node that neither the map nor a redirection has named for as long as a request may take is retired: its connections
//! end. One that is named is kept, whether it is up or not.

mod redirect;
mod slots;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub use redirect::{Again, is_refused, resend};
use slots::{Address, SLOTS};
pub use slots::{Redirection, slot_of};

use super::connect::{ConnectError, Connection};
use super::dedicated::Pool;
use super::frame;
use super::link::{Freshness, Link, now_ms};
use super::near::Near;
use super::socket::Dialer;
use super::statistics::Statistics;
use crate::config::upstream::UpstreamConfig;

/// Of so many nodes an error says why they are of no help.
const SHOWN: usize = 4;

/// What a node says in place of an answer.
fn said(reply: &[u8]) -> ConnectError {
    ConnectError::Refused(String::from_utf8_lossy(reply).trim_start_matches('-').trim().to_owned())
}

/// A master, and the connections to it.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub address: Address,
    /// The connection that tells of changes.
    pub tracked: Arc<Link>,
    /// The one that speaks RESP2.
    pub plain: Arc<Link>,
    /// Connections of one client's own.
    pub pool: Arc<Pool>,
    /// When it was last named as somebody to send to.
    named_ms: AtomicU64,
}

impl Node {
    /// The shared connection that speaks RESP2, or the one that tells of changes.
    pub fn link(&self, is_plain: bool) -> &Arc<Link> {
        if is_plain { &self.plain } else { &self.tracked }
    }
}

/// Where a request is to go.
#[derive(Debug, Clone)]
pub enum Target {
    /// To whoever has the slot.
    Slot(u16),
    /// To this node.
    Node(Arc<Node>),
    /// To any.
    Any,
}

#[derive(Debug, Default)]
struct Map {
    /// The master of each slot; empty before anything is known.
    slots: Vec<Option<Arc<Node>>>,
    /// All masters, in the order of their addresses.
    masters: Vec<Arc<Node>>,
}

impl Map {
    fn at(&self, target: &Target) -> Option<Arc<Node>> {
        match target {
            Target::Slot(slot) => self.slots.get(*slot as usize)?.clone(),
            Target::Node(node) => Some(node.clone()),
            Target::Any => {
                let up = self.masters.iter().find(|node| node.tracked.is_up());
                up.or(self.masters.first()).cloned()
            }
        }
    }
}

/// The cluster.
pub struct Cluster {
    seeds: Vec<Address>,
    config: Arc<UpstreamConfig>,
    dialer: Dialer,
    near: Arc<Near>,
    statistics: Arc<Statistics>,
    freshness: Arc<Freshness>,
    map: RwLock<Map>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    runtime: OnceLock<Handle>,
    wanted: Notify,
    /// Why nobody said who has which slot, when they were asked last.
    fault: Mutex<Option<String>>,
}

impl Cluster {
    /// A cluster of which only some addresses are known.
    pub fn new(
        seeds: Vec<Address>,
        config: Arc<UpstreamConfig>,
        dialer: Dialer,
        near: Arc<Near>,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self {
            seeds,
            config,
            dialer,
            near,
            statistics,
            freshness: Arc::default(),
            map: RwLock::default(),
            nodes: Mutex::default(),
            runtime: OnceLock::new(),
            wanted: Notify::new(),
            fault: Mutex::default(),
        }
    }

    /// Learns who has which slot, again at each heartbeat and whenever somebody wants it.
    pub async fn run(self: Arc<Self>) {
        // Set once: there is one thread that runs this.
        drop(self.runtime.set(Handle::current()));
        let mut turn = 0;
        loop {
            self.refresh(turn).await;
            turn += 1;
            // Not more often than this, however many ask.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            drop(tokio::time::timeout(self.config.heartbeat, self.wanted.notified()).await);
        }
    }

    /// The map seems to be wrong.
    pub fn want_refresh(&self) {
        self.wanted.notify_one();
    }

    fn config_at(&self, address: &Address) -> UpstreamConfig {
        let mut config = (*self.config).clone();
        (config.endpoint.host, config.endpoint.port) = address.clone();
        config.endpoint.cluster = None;
        config
    }

    /// Asks one node after the other until one says that the cluster works.
    async fn refresh(&self, turn: usize) {
        let mut known: Vec<Address> =
            self.map.read().masters.iter().map(|node| node.address.clone()).collect();
        known.extend(self.seeds.iter().cloned());
        known.sort();
        known.dedup();
        let count = known.len();
        let mut faults = Vec::new();
        for index in 0..count {
            let address = &known[(index + turn) % count];
            let limit = self.config.timeout;
            let why = match tokio::time::timeout(limit, self.ask(address)).await {
                Ok(Ok(Some(ranges))) => {
                    if self.fault.lock().take().is_some() {
                        tracing::info!("the cluster upstream says who has which slot");
                    }
                    return self.adopt(ranges);
                }
                Ok(Ok(None)) => "says that the cluster does not work".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => ConnectError::TimedOut(limit).to_string(),
            };
            faults.push((address, why));
        }
        self.failed(faults);
    }

    /// Nobody has said who has which slot. The log has it once for each cause.
    fn failed(&self, mut faults: Vec<(&Address, String)>) {
        // They are asked in another order each time.
        faults.sort();
        let count = faults.len();
        let mut shown: Vec<String> = faults
            .into_iter()
            .take(SHOWN)
            .map(|((host, port), why)| format!("{host}:{port}: {why}"))
            .collect();
        if count > SHOWN {
            shown.push(format!("and {} more", count - SHOWN));
        }
        let fault = format!("no node of the cluster says who has which slot ({})", shown.join("; "));
        let mut last = self.fault.lock();
        if last.as_ref() != Some(&fault) {
            tracing::warn!("{fault}");
            *last = Some(fault);
        }
    }

    /// Why nobody says who has which slot, if nobody does.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    async fn ask(
        &self,
        address: &Address,
    ) -> Result<Option<Vec<(std::ops::RangeInclusive<u16>, Address)>>, ConnectError> {
        let config = self.config_at(address);
        let mut connection = Connection::open(&config, &self.dialer, false, &self.statistics).await?;
        let info = connection.ask(&["CLUSTER", "INFO"]).await?;
        if frame::is_error(&info) {
            return Err(said(&info));
        }
        // One that is cut off from the others knows nothing of what they have decided; but where no node says that all is
        // well, because some slots are nobody's, the slots that are somebody's are still served if the cluster is set so.
        let works = memchr::memmem::find(&info, b"cluster_state:ok").is_some();
        if !works && !self.map.read().slots.is_empty() {
            return Ok(None);
        }
        let reply = connection.ask(&["CLUSTER", "SLOTS"]).await?;
        let ranges = slots::read(&reply, &address.0).ok_or_else(|| said(&reply))?;
        if ranges.is_empty() {
            return Err(ConnectError::Refused("no node has any slot".to_owned()));
        }
        Ok(Some(ranges))
    }

    fn adopt(&self, ranges: Vec<(std::ops::RangeInclusive<u16>, Address)>) {
        // Until now they were named.
        self.map.read().slots.iter().flatten().for_each(|node| node.named_ms.store(now_ms(), Relaxed));
        let mut slots = vec![None; SLOTS];
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for (range, address) in ranges {
            let node = self.node(&address);
            if !masters.iter().any(|master| master.address == address) {
                masters.push(node.clone());
            }
            range.for_each(|slot| slots[slot as usize] = Some(node.clone()));
        }
        masters.sort_by(|a, b| a.address.cmp(&b.address));
        let has_changed = {
            let mut map = self.map.write();
            let same = |(a, b): (&Option<Arc<Node>>, &Option<Arc<Node>>)| match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (a, b) => a.is_none() && b.is_none(),
            };
            let is_same = map.slots.len() == slots.len() && map.slots.iter().zip(&slots).all(same);
            *map = Map { slots, masters };
            !is_same
        };
        // Behind the change of the map: see above.
        if has_changed {
            self.near.drop_all();
        }
        self.retire_unnamed();
    }

    /// Ends the connections to nodes that nothing is sent to any more; what was sent before has had its time.
    fn retire_unnamed(&self) {
        let named = self.map.read().masters.clone();
        let limit_ms = self.config.timeout.max(self.config.heartbeat).as_millis() as u64;
        self.nodes.lock().retain(|address, node| {
            let silent_ms = now_ms().saturating_sub(node.named_ms.load(Relaxed));
            let is_kept = silent_ms <= limit_ms || named.iter().any(|other| Arc::ptr_eq(other, node));
            if !is_kept {
                tracing::info!("the cluster upstream does not name {}:{} any more", address.0, address.1);
                node.tracked.retire();
                node.plain.retire();
            }
            is_kept
        });
    }

    /// How many nodes there are connections to.
    pub fn connected_nodes(&self) -> usize {
        self.nodes.lock().len()
    }

    /// A node has said that a slot is another's.
    pub fn moved(&self, slot: u16, address: &Address) -> Arc<Node> {
        let node = self.node(address);
        let has_changed = {
            let mut map = self.map.write();
            match map.slots.get_mut(slot as usize) {
                Some(owner) if owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &node)) => false,
                Some(owner) => {
                    *owner = Some(node.clone());
                    true
                }
                None => false,
            }
        };
        if has_changed {
            self.near.drop_all();
        }
        self.want_refresh();
        node
    }

    /// The node at an address, whose connections are begun if it was not known.
    pub fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get(address) {
            node.named_ms.store(now_ms(), Relaxed);
            return node.clone();
        }
        let config = Arc::new(self.config_at(address));
        let link = |is_tracked| {
            let (near, statistics) = (self.near.clone(), self.statistics.clone());
            let link = Link::new(is_tracked, config.clone(), self.dialer.clone(), near, statistics);
            Arc::new(link.among(&self.freshness))
        };
        let (near, statistics) = (self.near.clone(), self.statistics.clone());
        let most = self.config.connections - 2;
        let pool = Pool::new(most, self.dialer.clone(), near, config.clone(), statistics);
        let node = Arc::new(Node {
            address: address.clone(),
            tracked: link(true),
            plain: link(false),
            pool: Arc::new(pool),
            named_ms: AtomicU64::new(now_ms()),
        });
        if let Some(runtime) = self.runtime.get() {
            runtime.spawn(node.tracked.clone().run());
            runtime.spawn(node.plain.clone().run());
        }
        nodes.insert(address.clone(), node.clone());
        node
    }

    /// Who is to get a request, as far as is known.
    pub fn at(&self, target: &Target) -> Option<Arc<Node>> {
        self.map.read().at(target)
    }

    /// Who is to get each of several requests, by one and the same map: those of one slot have one node.
    pub fn each_at<'t>(&self, targets: impl Iterator<Item = &'t Target>) -> Vec<Option<Arc<Node>>> {
        let map = self.map.read();
        targets.map(|target| map.at(target)).collect()
    }

    /// All masters, in an order that lasts as long as they do.
    pub fn masters(&self) -> Vec<Arc<Node>> {
        self.map.read().masters.clone()
    }
}
