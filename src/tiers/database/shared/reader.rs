//! Reads the stream: each entry is one host's to bring to the database, its own for as long as it lives.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::entry::read_page;
use super::names::GROUP;
use super::{ANSWER, Shared, ask, scripts};
use crate::tiers::database::store::Failure;
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{Backoff, Dedicated, elements, encode, is_error, text};

/// Entries read at a time, at most,
const PAGE: usize = 500;
/// and about so many bytes.
const PAGE_BYTES: usize = 4 << 20;
/// A host takes no more while so many changes wait in its backlog, or so many bytes: the others, or upstream, have them.
const MOST_TAKEN: usize = 10_000;
const MOST_TAKEN_BYTES: usize = 64 << 20;
/// How long upstream lets us wait for an entry.
const BLOCK: &str = "1000";
const PAUSE: Duration = Duration::from_millis(20);

impl Shared {
    /// Reads for as long as the process lives.
    pub(super) async fn read(&'static self) {
        // Nothing is done for a database that is not as it should be; what waits may be another host's to flush.
        self.backend.readiness.ready().await;
        let mut backoff = Backoff::default();
        loop {
            let error = match self.upstream.pool(None) {
                Ok(pool) => match pool.take(false, DATABASE).await {
                    Ok(mut dedicated) => self.read_by(&mut dedicated, &mut backoff).await,
                    Err(error) => Failure::Transient(error.to_string()),
                },
                Err(error) => Failure::Transient(error.to_string()),
            };
            tracing::debug!(%error, "the journal upstream is not read");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Reads by this connection until it fails; says why.
    async fn read_by(&'static self, dedicated: &mut Dedicated, backoff: &mut Backoff) -> Failure {
        if let Err(failure) = self.set_up(dedicated).await {
            return failure;
        }
        backoff.reset();
        // What this host had been given, and may never have received.
        let mut from = b"0".to_vec();
        let mut count = 1;
        loop {
            let bytes = self.taken.lock().bytes;
            if self.backend.depth().0 >= MOST_TAKEN || bytes >= MOST_TAKEN_BYTES {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let last = match self.read_page(dedicated, &from, &mut count).await {
                Ok(last) => last,
                Err(failure) => return failure,
            };
            from = last.filter(|_| from != b">").unwrap_or_else(|| b">".to_vec());
        }
    }

    /// Makes the group, and lifts the version above all that the database has.
    async fn set_up(&self, dedicated: &mut Dedicated) -> Result<(), Failure> {
        let highest = self.backend.store.highest_version().await?.to_string();
        let (stream, version) = (self.names.stream.as_bytes(), self.names.version.as_bytes());
        let seed: &[&[u8]] = &[b"EVAL", scripts::SEED.as_bytes(), b"1", version, highest.as_bytes()];
        ask(dedicated, &[seed]).await?;
        let mut bytes = Vec::new();
        let words: [&[u8]; 6] = [b"XGROUP", b"CREATE", stream, GROUP.as_bytes(), b"0", b"MKSTREAM"];
        encode(words.into_iter(), &mut bytes);
        let reply = call(dedicated, &bytes).await?;
        if is_error(&reply) && !reply.starts_with(b"-BUSYGROUP") {
            return Err(Failure::Transient(String::from_utf8_lossy(&reply).trim_end().to_owned()));
        }
        Ok(())
    }

    /// Reads a page of so many entries from a place on; the last one's place, if there was any. What they weigh says how many
    /// the next page is to have.
    async fn read_page(
        &'static self,
        dedicated: &mut Dedicated,
        from: &[u8],
        count: &mut usize,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let (mut bytes, number) = (Vec::new(), count.to_string());
        let words: [&[u8]; 11] = [
            b"XREADGROUP",
            b"GROUP",
            GROUP.as_bytes(),
            self.host.as_bytes(),
            b"COUNT",
            number.as_bytes(),
            b"BLOCK",
            BLOCK.as_bytes(),
            b"STREAMS",
            self.names.stream.as_bytes(),
            from,
        ];
        encode(words.into_iter(), &mut bytes);
        let reply = call(dedicated, &bytes).await?;
        if is_error(&reply) {
            return Err(Failure::Transient(String::from_utf8_lossy(&reply).trim_end().to_owned()));
        }
        // Null: nothing came in time.
        let Some(streams) = elements(&reply) else { return Ok(None) };
        let Some(stream) = streams.first().and_then(|stream| elements(stream)) else { return Ok(None) };
        let page = stream
            .get(1)
            .and_then(|page| read_page(page))
            .ok_or_else(|| Failure::Transient("upstream's reply to XREADGROUP makes no sense".to_owned()))?;
        let last = page.last().map(|(id, _)| id.to_vec());
        let each = reply.len() / page.len().max(1) + 1;
        // Slowly up, at once down.
        *count = (PAGE_BYTES / each).clamp(1, PAGE.min(*count * 8));
        for (id, entry) in page {
            self.accept(id, entry);
        }
        Ok(last)
    }

    /// What an entry weighs, on the average.
    fn weight(&self) -> usize {
        let entries = self.seen.lock().entries.max(1);
        self.bytes.load(Relaxed).max(0) as usize / entries as usize
    }

    /// Takes over what hosts had been given that are gone.
    pub(super) async fn inherit(&'static self, dedicated: &mut Dedicated) -> Result<(), Failure> {
        let (stream, group) = (self.names.stream.as_bytes(), GROUP.as_bytes());
        let mut bytes = Vec::new();
        encode([&b"XINFO"[..], b"CONSUMERS", stream, group].into_iter(), &mut bytes);
        let reply = call(dedicated, &bytes).await?;
        // There is no group before somebody reads.
        let consumers = if is_error(&reply) { Vec::new() } else { elements(&reply).unwrap_or_default() };
        for consumer in consumers {
            let fields = elements(consumer).unwrap_or_default();
            let Some(name) =
                fields.get(1).and_then(|name| text(name)).filter(|name| *name != self.host.as_bytes())
            else {
                continue;
            };
            let sign = self.names.host(&String::from_utf8_lossy(name));
            let is_alive = ask(dedicated, &[&[b"EXISTS", sign.as_bytes()]]).await?;
            if *is_alive[0] == *b":0\r\n" {
                self.inherit_from(dedicated, name, sign.as_bytes()).await?;
            }
        }
        Ok(())
    }

    async fn inherit_from(
        &'static self,
        dedicated: &mut Dedicated,
        name: &[u8],
        sign: &[u8],
    ) -> Result<(), Failure> {
        let (stream, group, host) = (self.names.stream.as_bytes(), GROUP.as_bytes(), self.host.as_bytes());
        let count = (PAGE_BYTES / self.weight().max(1)).clamp(1, PAGE).to_string();
        let pending: &[&[u8]] = &[b"XPENDING", stream, group, b"-", b"+", count.as_bytes(), name];
        let replies = ask(dedicated, &[pending]).await?;
        let entries = elements(&replies[0]).unwrap_or_default();
        let ids: Vec<&[u8]> = entries.iter().filter_map(|entry| text(elements(entry)?.first()?)).collect();
        if ids.is_empty() {
            let bury: &[&[u8]] = &[b"EVAL", scripts::BURY.as_bytes(), b"1", stream, name, sign];
            return ask(dedicated, &[bury]).await.map(drop);
        }
        // Of two hosts that see the same, only one is given an entry: it has been idle no longer then.
        let idle = super::keeper::LIFE.as_millis().to_string();
        let claim: Vec<&[u8]> =
            [&b"XCLAIM"[..], stream, group, host, idle.as_bytes()].into_iter().chain(ids).collect();
        let replies = ask(dedicated, &[&claim]).await?;
        let page = read_page(&replies[0]).unwrap_or_default();
        if !page.is_empty() {
            tracing::info!(entries = page.len(), "taking over what a host had accepted that is gone");
        }
        for (id, entry) in page {
            self.accept(id, entry);
        }
        Ok(())
    }
}

async fn call(dedicated: &mut Dedicated, request: &[u8]) -> Result<Box<[u8]>, Failure> {
    match tokio::time::timeout(ANSWER, dedicated.call(request, 1)).await {
        Ok(Ok(mut replies)) => Ok(replies.pop().unwrap_or_default()),
        Ok(Err(error)) => Err(Failure::Transient(format!("upstream: {error}"))),
        Err(_) => Err(Failure::Transient("upstream does not answer".to_owned())),
    }
}
