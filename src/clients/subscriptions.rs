//! `SUBSCRIBE` and `PUBLISH`: who hears what is said on which channel.
//!
//! What is published goes to its listeners under the lock of the channels, so all of them hear it in the same order. It
//! waits for the replies of what a listener has run until then ([`super::pushes`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Client;
use crate::protocol::{Protocol, Reply};
use crate::types::glob;

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A channel.
    Channel,
    /// Channels whose names match a pattern.
    Pattern,
    /// A channel of a shard, which is apart from the others of that name.
    Shard,
}

type Listeners = HashMap<Box<[u8]>, Vec<Arc<Client>>, ahash::RandomState>;

/// All listeners.
#[derive(Default)]
pub struct Subscriptions {
    channels: Mutex<Listeners>,
    patterns: Mutex<Listeners>,
    shards: Mutex<Listeners>,
    /// Subscriptions of all kinds: while there is none, nothing is looked for.
    count: AtomicUsize,
}

/// A message, encoded once for each protocol that it is asked in.
struct Message<'a> {
    parts: &'a [&'a [u8]],
    encoded: [Option<Vec<u8>>; 2],
}

impl Message<'_> {
    fn send(&mut self, client: &Client, most: usize) {
        let resp3 = client.resp3.load(Relaxed);
        let bytes = self.encoded[usize::from(resp3)].get_or_insert_with(|| {
            let mut bytes = Vec::new();
            let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
            let mut reply = Reply::new(&mut bytes, protocol);
            reply.push(self.parts.len());
            self.parts.iter().for_each(|part| reply.bulk(part));
            bytes
        });
        client.push_within(bytes, most);
    }
}

/// Sends a message to listeners; returns how many they are.
fn tell(listeners: &[Arc<Client>], parts: &[&[u8]], most: usize) -> usize {
    let mut message = Message { parts, encoded: [None, None] };
    listeners.iter().for_each(|client| message.send(client, most));
    listeners.len()
}

impl Subscriptions {
    fn of(&self, audience: Audience) -> &Mutex<Listeners> {
        match audience {
            Audience::Channel => &self.channels,
            Audience::Pattern => &self.patterns,
            Audience::Shard => &self.shards,
        }
    }

    /// Adds a listener, which has not this subscription yet.
    pub(super) fn add(&self, audience: Audience, name: &[u8], client: &Arc<Client>) {
        self.of(audience).lock().entry(name.into()).or_default().push(client.clone());
        self.count.fetch_add(1, Relaxed);
    }

    /// Removes a listener.
    pub(super) fn remove(&self, audience: Audience, name: &[u8], client: &Client) {
        let mut listeners = self.of(audience).lock();
        let Some(list) = listeners.get_mut(name) else { return };
        let before = list.len();
        list.retain(|other| other.id != client.id);
        self.count.fetch_sub(before - list.len(), Relaxed);
        if list.is_empty() {
            listeners.remove(name);
        }
    }

    /// Whether nobody listens to anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Says something on a channel; returns how many subscriptions heard it. Whoever lets more than `most` bytes wait is
    /// disconnected.
    pub fn publish(&self, channel: &[u8], text: &[u8], most: usize) -> usize {
        if self.is_empty() {
            return 0;
        }
        let channels = self.channels.lock();
        let of_channel = channels.get(channel).map_or(0, |to| tell(to, &[b"message", channel, text], most));
        let patterns = self.patterns.lock();
        let matching = patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel));
        let of_patterns =
            matching.map(|(pattern, to)| tell(to, &[b"pmessage", pattern, channel, text], most));
        of_channel + of_patterns.sum::<usize>()
    }

    /// Says something on a channel of a shard.
    pub fn publish_sharded(&self, channel: &[u8], text: &[u8], most: usize) -> usize {
        self.shards.lock().get(channel).map_or(0, |to| tell(to, &[b"smessage", channel, text], most))
    }

    /// Whether a client listens only to what `may` allows.
    pub fn all_allowed(&self, client: u64, may: impl Fn(Audience, &[u8]) -> bool) -> bool {
        [Audience::Channel, Audience::Pattern, Audience::Shard].into_iter().all(|audience| {
            let listeners = self.of(audience).lock();
            let is_his = |list: &Vec<Arc<Client>>| list.iter().any(|other| other.id == client);
            listeners.iter().filter(|(_, list)| is_his(list)).all(|(name, _)| may(audience, name))
        })
    }

    /// The names that are listened to, those that match a pattern if there is one.
    pub fn names(&self, audience: Audience, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let listeners = self.of(audience).lock();
        let is_meant = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        listeners.keys().filter(|name| is_meant(name)).cloned().collect()
    }

    /// How many names are listened to.
    pub fn len(&self, audience: Audience) -> usize {
        self.of(audience).lock().len()
    }

    /// How many listen to one.
    pub fn listeners(&self, audience: Audience, name: &[u8]) -> usize {
        self.of(audience).lock().get(name).map_or(0, Vec::len)
    }
}
