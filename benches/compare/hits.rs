//! Hit ratios of the real servers under memory pressure: a cache-aside client gets keys and sets what it missed.
//!
//! Both get the same traces and the same `maxmemory`, so a server that needs less memory for a key holds more keys.
//! The policies as such are compared in `benches/eviction`.

use std::io;

use crate::args::Options;
use crate::client::{Client, Endpoint, encode};
use crate::placement::Placement;
use crate::report;
use crate::server::{Contender, Contest, Scratch};
use crate::traces::Trace;

const KEYS: usize = 200_000;
const REQUESTS: usize = 1_600_000;
const VALUE: usize = 200;
/// Of about 65 MB that Redis would need for all keys.
const LIMITS_MB: [usize; 2] = [8, 24];
/// Gets under way at a time.
const BATCH: usize = 64;

/// Runs every trace and limit that is wanted and prints its line; returns how many there were.
pub fn run(options: &Options, contest: &Contest, directory: &Scratch) -> Result<usize, String> {
    let label = |trace: &Trace, limit: usize| format!("hits-{}-{limit}mb", trace.name());
    let wanted = |trace: &Trace| LIMITS_MB.iter().any(|&limit| options.wants(&label(trace, limit)));
    if !Trace::ALL.iter().any(wanted) {
        return Ok(0);
    }
    let Some(placement) = Placement::new(options, 1)? else {
        return Err("needs at least two usable cores".into());
    };
    let contenders = [&contest.subject, &contest.baseline];
    let columns = contenders.iter().flat_map(|who| who.policies().iter().map(|policy| (*who, *policy)));
    let columns: Vec<(&Contender, &str)> = columns.collect();
    let names =
        columns.iter().map(|(who, policy)| format!("{} {policy}", who.name.replace("redis-server", "redis")));
    report::hits_header(&names.collect::<Vec<_>>());
    let requests = if options.quick { REQUESTS / 4 } else { REQUESTS };
    let mut printed = 0;
    for trace in Trace::ALL.iter().filter(|trace| wanted(trace)) {
        let keys = trace.generate(KEYS, requests);
        for limit in LIMITS_MB.into_iter().filter(|&limit| options.wants(&label(trace, limit))) {
            let mut cells = Vec::new();
            for (who, policy) in &columns {
                let server = who.start(directory, &placement.server)?;
                let endpoint = Endpoint::Unix(server.socket.clone());
                let cell = replay(&endpoint, limit, policy, &keys);
                cells.push(cell.map_err(|e| format!("{} {policy}: {e}", server.name))?);
            }
            report::hits_line(&label(trace, limit), &cells);
            printed += 1;
        }
    }
    Ok(printed)
}

/// Percentage of hits after the first fifth, and the keys held at the end.
fn replay(endpoint: &Endpoint, limit_mb: usize, policy: &str, keys: &[u32]) -> io::Result<(f64, usize)> {
    let mut client = Client::connect(endpoint)?;
    client.command(&["CONFIG", "SET", "maxmemory-policy", policy])?;
    client.command(&["CONFIG", "SET", "maxmemory", &format!("{limit_mb}mb")])?;
    let value = "x".repeat(VALUE);
    let warm = keys.len() / 5;
    let (mut hits, mut request) = (0usize, Vec::new());
    for (n, batch) in keys.chunks(BATCH).enumerate() {
        request.clear();
        batch.iter().for_each(|key| encode(&mut request, &["GET", &name(*key)]));
        client.send(&request)?;
        let mut present = Vec::with_capacity(batch.len());
        client.read_replies(batch.len(), |there| present.push(there))?;
        if n * BATCH >= warm {
            hits += present.iter().filter(|there| **there).count();
        }
        request.clear();
        let missed: Vec<u32> =
            batch.iter().zip(&present).filter(|(_, there)| !**there).map(|(key, _)| *key).collect();
        missed.iter().for_each(|key| encode(&mut request, &["SET", &name(*key), &value]));
        client.send(&request)?;
        client.skip_replies(missed.len())?;
    }
    let held = client.integer(&["DBSIZE"])?;
    Ok((100.0 * hits as f64 / (keys.len() - warm) as f64, held))
}

fn name(key: u32) -> String {
    format!("key:{key:012}")
}
