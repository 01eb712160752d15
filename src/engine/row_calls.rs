//! Requests on rows that wait: until what they depend on is at hand, and for their replies.

use std::sync::Arc;

use super::row_keys::Row;
use super::row_scripts::{
    MOST_TRIES, Said, encode_script, failed, load, nonsense, overtaken, plain_error, said, send, wait,
    writing,
};
use crate::protocol::{Args, OwnedArgs};
use crate::tiers::database::shared::{Shared, WRITE};
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{
    Expected, Failure, Form, Gather, Miss, Request, Upstream, Writing, elements, encode, integer, is_error,
    now_ms,
};
use crate::types::hasher::hash_bytes;

/// A read whose reply may be kept.
pub(super) struct Kept {
    pub command: usize,
    pub key_at: usize,
    pub resp3: bool,
}

/// A request that waits for rows.
pub(super) struct Call {
    pub shared: &'static Shared,
    pub upstream: Arc<Upstream>,
    pub rows: Vec<Row>,
    pub args: OwnedArgs,
    pub form: Form,
    pub is_plain: bool,
    /// All keys that the request may change.
    pub writes: Vec<Box<[u8]>>,
}

/// Writes the script that runs a command on rows.
pub(super) fn encode_write(shared: &Shared, rows: &[Row], is_plain: bool, args: Args<'_>, to: &mut Vec<u8>) {
    let protocol: &[u8] = if is_plain { b"2" } else { b"3" };
    let rest: Vec<&[u8]> = std::iter::once(protocol).chain(args.iter()).collect();
    encode_script(shared, WRITE, rows, &rest, to);
}

impl Call {
    /// Brings rows into the cache; the places of those that are known to be absent, or the error to reply.
    async fn load(&self, places: &[usize]) -> Result<Vec<usize>, Vec<u8>> {
        load(self.shared, &self.rows, places).await
    }

    /// Runs a write.
    pub async fn write(self) -> Vec<u8> {
        let mut request = Vec::new();
        encode_write(self.shared, &self.rows, self.is_plain, self.args.as_args(), &mut request);
        for _ in 0..MOST_TRIES {
            let writing = || writing(&self.upstream, &self.writes);
            let frame = match send(&self.upstream, self.is_plain, &request, writing).await {
                Ok(frame) if is_error(&frame) => return plain_error(&frame),
                Ok(frame) => frame,
                Err(failure) => return failed(&self.upstream, failure, true),
            };
            match said(self.shared, &frame) {
                Said::Done(reply) => return self.form.of(&reply).into(),
                Said::Missing(places) => {
                    if let Err(error) = self.load(&places).await {
                        return error;
                    }
                }
                Said::Nonsense => return nonsense(),
            }
        }
        overtaken()
    }

    /// Runs a read.
    pub async fn read(self, kept: Option<Kept>) -> Vec<u8> {
        let mut known: Vec<usize> = Vec::new();
        let mut kept = kept;
        for _ in 0..MOST_TRIES {
            let read = match &kept {
                Some(kept) => self.read_kept(kept).await,
                None => self.read_once(&known).await,
            };
            let missing = match read {
                Ok(Ok(reply)) => return reply,
                Ok(Err(missing)) => missing,
                Err(failure) => return failed(&self.upstream, failure, false),
            };
            match self.load(&missing).await {
                Ok(absent) => known.extend(absent),
                Err(error) => return error,
            }
            if !known.is_empty() {
                // That a key is absent is known for this request alone.
                kept = None;
            }
        }
        overtaken()
    }

    /// Reads a key whose reply may be kept: the reply, or that the key is not there.
    async fn read_kept(&self, kept: &Kept) -> Result<Result<Vec<u8>, Vec<usize>>, Failure> {
        let args = self.args.as_args();
        let key = args.at(kept.key_at);
        let request = Request {
            db: DATABASE,
            command: kept.command,
            args,
            key_at: kept.key_at,
            has_rest: true,
            resp3: kept.resp3,
            hash: hash_bytes(key),
        };
        let gather = Arc::<Gather>::default();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        match self.upstream.near.miss(&request, now_ms(), gather.ticket().0) {
            Miss::Joined => {}
            Miss::Lead(filling) => {
                encode([&b"MULTI"[..]].into_iter(), &mut bytes);
                encode([&b"PTTL"[..], key].into_iter(), &mut bytes);
                encode(args.iter(), &mut bytes);
                encode([&b"EXEC"[..]].into_iter(), &mut bytes);
                expected.extend((0..3).map(|_| Expected::Ignored));
                expected.push(Expected::RowFill(Box::new(filling), self.form.clone()));
            }
            Miss::Unkept(_) => return self.read_once(&[]).await,
        }
        let outcomes = wait(&self.upstream, false, &bytes, expected, &gather).await;
        match outcomes.into_iter().next().unwrap_or(Err(Failure::TimedOut)) {
            Ok(reply) => Ok(Ok(reply.into())),
            Err(Failure::Absent) => Ok(Err(vec![0])),
            Err(failure) => Err(failure),
        }
    }

    /// Reads: the reply, or which rows are not there; those of `known` need not be.
    async fn read_once(&self, known: &[usize]) -> Result<Result<Vec<u8>, Vec<usize>>, Failure> {
        let gather = Arc::<Gather>::default();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        encode([&b"MULTI"[..]].into_iter(), &mut bytes);
        for row in &self.rows {
            encode([&b"PTTL"[..], &row.key].into_iter(), &mut bytes);
        }
        encode(self.args.as_args().iter(), &mut bytes);
        encode([&b"EXEC"[..]].into_iter(), &mut bytes);
        expected.extend((0..=self.rows.len()).map(|_| Expected::Ignored));
        let written = writing(&self.upstream, &self.writes);
        expected.push(Expected::Answer(gather.ticket().0, Form::Raw, Writing::default()));
        expected.push(Expected::Answer(gather.ticket().0, Form::Raw, written));
        let outcomes = wait(&self.upstream, self.is_plain, &bytes, expected, &gather).await;
        let mut outcomes = outcomes.into_iter();
        let (Some(queued), Some(block)) = (outcomes.next(), outcomes.next()) else {
            return Err(Failure::TimedOut);
        };
        let (queued, block) = (queued?, block?);
        if is_error(&queued) {
            return Ok(Ok(queued.into()));
        }
        let parts = elements(&block).unwrap_or_default();
        if parts.len() != self.rows.len() + 1 {
            return Ok(Ok(if is_error(&block) { block.into() } else { nonsense() }));
        }
        let is_missing = |place: &usize| integer(parts[*place]) == Some(-2) && !known.contains(place);
        let missing: Vec<usize> = (0..self.rows.len()).filter(is_missing).collect();
        if missing.is_empty() {
            Ok(Ok(self.form.of(parts[parts.len() - 1]).into()))
        } else {
            Ok(Err(missing))
        }
    }
}
