//! `CACHE.INVALIDATE`: keys that match a pattern are removed from upstream, a page at a time.
//!
//! Other hosts hear of each key as of any change: what they keep is tracked by upstream.

use std::sync::Arc;

use super::Upstream;
use super::connect::encode;
use super::dedicated::Dedicated;
use super::frame;
use crate::types::hasher::hash_bytes;

/// Keys that upstream looks at for one page.
const PAGE: &str = "1000";

/// Removes the keys of a database that match; the reply is how many there were, or an error.
pub async fn invalidate(upstream: Arc<Upstream>, db: usize, pattern: Box<[u8]>) -> Vec<u8> {
    let pools = match &upstream.cluster {
        Some(cluster) => cluster.masters().iter().map(|node| node.pool.clone()).collect(),
        None => vec![upstream.pool.clone()],
    };
    if pools.is_empty() {
        return failed("UPSTREAMDOWN no node of the cluster upstream is known");
    }
    let mut removed = 0;
    for pool in pools {
        let mut dedicated = match pool.take(false, db).await {
            Ok(dedicated) => dedicated,
            Err(error) => return failed(&format!("UPSTREAMDOWN upstream cannot be reached: {error}")),
        };
        match pages(&upstream, &mut dedicated, &pattern).await {
            Ok(more) => removed += more,
            Err(text) => return failed(&text),
        }
        pool.give_back(dedicated);
    }
    upstream.near.drop_keys(|key| crate::types::glob::matches(&pattern, key));
    format!(":{removed}\r\n").into_bytes()
}

async fn pages(upstream: &Upstream, dedicated: &mut Dedicated, pattern: &[u8]) -> Result<i64, String> {
    let (mut cursor, mut removed) = (b"0".to_vec(), 0);
    loop {
        let request = [&b"SCAN"[..], &cursor, b"MATCH", pattern, b"COUNT", PAGE.as_bytes()];
        let page = ask(upstream, dedicated, &request).await?;
        let parts = frame::elements(&page).unwrap_or_default();
        let [next, keys] = parts[..] else {
            return Err("ERR upstream's reply to SCAN makes no sense".to_owned());
        };
        let keys: Vec<&[u8]> = frame::elements(keys)
            .unwrap_or_default()
            .into_iter()
            .filter_map(frame::text)
            .filter(is_data)
            .collect();
        // A node of a cluster takes together only what is of one slot.
        let most = if upstream.cluster.is_some() { 1 } else { keys.len().max(1) };
        for keys in keys.chunks(most) {
            let writing =
                upstream.writing(keys.iter().map(|key| (hash_bytes(key), Box::from(*key))).collect());
            let request: Vec<&[u8]> = [&b"UNLINK"[..]].into_iter().chain(keys.iter().copied()).collect();
            let reply = ask(upstream, dedicated, &request).await?;
            drop(writing);
            removed += frame::integer(&reply).unwrap_or(0);
        }
        cursor = frame::text(next).unwrap_or(b"0").to_vec();
        if cursor == b"0" {
            return Ok(removed);
        }
    }
}

/// Whether a key is not one of those that hosts agree by, as on the journal.
fn is_data(key: &&[u8]) -> bool {
    !key.starts_with(b"anteroom:{")
}

async fn ask(upstream: &Upstream, dedicated: &mut Dedicated, words: &[&[u8]]) -> Result<Box<[u8]>, String> {
    let mut request = Vec::new();
    encode(words.iter().copied(), &mut request);
    let asked = tokio::time::timeout(upstream.config.timeout, dedicated.call(&request, 1)).await;
    let mut replies = asked
        .map_err(|_| "OUTCOMEUNKNOWN upstream did not answer in time: some keys may be removed".to_owned())?
        .map_err(|error| format!("OUTCOMEUNKNOWN upstream was lost, some keys may be removed: {error}"))?;
    let reply = replies.pop().unwrap_or_default();
    if frame::is_error(&reply) {
        return Err(String::from_utf8_lossy(&reply[1..]).trim().to_owned());
    }
    Ok(reply)
}

fn failed(text: &str) -> Vec<u8> {
    format!("-{}\r\n", text.replace(['\r', '\n'], " ")).into_bytes()
}
