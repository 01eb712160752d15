//! What happens when a journal is opened: finding what is there, replaying what is not done, cutting off what a crash
//! left torn, and telling damage from it. `mod.rs` says which is which.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::checkpoint::CheckpointFile;
use super::error::{OpenError, while_opening};
use super::format::{HEADER_LEN, Header, HeaderFault};
use super::ledger::Ledger;
use super::options::Options;
use super::repair;
use super::report::{Damage, Report, Torn};
use super::scan::{Frames, Piece, Position, Rest};
use super::segment::{self, Closed};
use super::storage::Storage;
use super::{Sequence, checkpoint};
use crate::clock;

/// How far sequences jump when it is not known which were handed out: more than fit into a segment and the buffer.
const JUMP: u64 = 1 << 32;

/// What a start begins with.
pub struct Recovered {
    /// Segments, in order.
    pub closed: VecDeque<Closed>,
    /// The records replayed.
    pub ledger: Ledger,
    /// The last recorded sequence.
    pub end: Sequence,
    /// The checkpoint.
    pub checkpoint: CheckpointFile,
    /// What was found.
    pub report: Report,
}

/// A segment before its frames are read.
struct Found {
    name: String,
    first: Sequence,
    len: u64,
    header: Result<(Header, bool), HeaderFault>,
}

struct Recovery<'a> {
    storage: &'a dyn Storage,
    repair: bool,
    mark: Sequence,
    checkpoint: CheckpointFile,
    replay: &'a mut dyn FnMut(Sequence, &[u8]),
    /// Off once a loss was met that is not to be repaired: then it is only counted up.
    replaying: bool,
    closed: VecDeque<Closed>,
    ledger: Ledger,
    /// The last sequence in the segments read.
    end: Sequence,
    report: Report,
}

/// Opens what the directory holds.
pub fn recover(
    storage: &dyn Storage,
    options: &Options,
    replay: &mut dyn FnMut(Sequence, &[u8]),
) -> Result<Recovered, OpenError> {
    let started = clock::monotonic();
    let checkpoint = CheckpointFile::read(storage).map_err(while_opening("read the checkpoint"))?;
    let found = find(storage).map_err(while_opening("read the journal's directory"))?;
    let mark = checkpoint.content.mark;
    let mut recovery = Recovery {
        storage,
        repair: options.repair,
        mark,
        checkpoint,
        replay,
        replaying: true,
        closed: VecDeque::new(),
        ledger: Ledger::new(mark),
        end: 0,
        report: Report { segments: found.len(), mark, ..Report::default() },
    };
    recovery.check_start(&found);
    for (index, segment) in found.iter().enumerate() {
        recovery.segment(segment, found.get(index + 1))?;
    }
    recovery.finish(&found, options, started)
}

fn find(storage: &dyn Storage) -> std::io::Result<Vec<Found>> {
    let mut names: Vec<_> =
        storage.names()?.into_iter().filter_map(|name| Some((segment::first_of(&name)?, name))).collect();
    names.sort_unstable();
    let mut bytes = Vec::new();
    let read = |(first, name): (Sequence, String)| {
        let len = storage.read(&name, HEADER_LEN as u64, &mut bytes)?;
        let header = match Header::decode(&bytes) {
            Ok((header, _)) if header.first != first => Err(HeaderFault::Damaged),
            header => header,
        };
        Ok(Found { name, first, len, header })
    };
    names.into_iter().map(read).collect()
}

impl Found {
    /// The sequence that the segment before it should end with.
    fn follows(&self) -> Option<Sequence> {
        self.header.as_ref().ok().map(|(header, _)| header.follows)
    }
}

impl Recovery<'_> {
    /// Looks for segments missing in front of the first, and takes note of a checkpoint that is not reliable.
    fn check_start(&mut self, found: &[Found]) {
        let follows = found.first().and_then(Found::follows).unwrap_or(0);
        self.report.checkpoint_damaged =
            self.checkpoint.damaged || (!self.checkpoint.exists() && !found.is_empty());
        // With a checkpoint that lags, those segments may have been removed because they were done.
        if follows > self.mark && !self.report.checkpoint_damaged {
            self.damage(&found[0].name, 0, 0, Some((self.mark + 1, follows)));
        }
        self.end = if found.is_empty() { self.mark } else { follows };
    }

    fn segment(&mut self, found: &Found, next: Option<&Found>) -> Result<(), OpenError> {
        let through = next.and_then(Found::follows);
        if let Some(through) = through.filter(|through| *through <= self.mark) {
            self.end = through;
            self.close(found, through, found.len);
            return Ok(());
        }
        match &found.header {
            Ok((header, intact)) if header.first > self.end => {
                if !intact {
                    self.damage(&found.name, 0, HEADER_LEN as u64, None);
                }
                self.frames(found, header, next.is_none(), through)
            }
            Err(HeaderFault::Version(version)) => {
                Err(OpenError::Version { name: found.name.clone(), version: *version })
            }
            Err(HeaderFault::Short) if next.is_none() => {
                let missing = self.missing(None);
                self.report.torn = Some(Torn { missing, ..torn(&found.name, found.len) });
                if !self.replaying {
                    return Ok(());
                }
                self.storage.remove(&found.name).map_err(while_opening("remove a torn segment"))
            }
            _ => self.without_header(found, through, next.is_none()),
        }
    }

    /// Nothing in it can be told from chance.
    fn without_header(
        &mut self,
        found: &Found,
        through: Option<Sequence>,
        last: bool,
    ) -> Result<(), OpenError> {
        // Where the following header is unreadable too, its own segment tells of what is lost from there.
        let until = if last { Sequence::MAX } else { through.unwrap_or(found.first) };
        self.damage(&found.name, 0, found.len, Some((self.end + 1, until)));
        if self.replaying {
            let bytes = self.read(found)?;
            let until = if last { 0 } else { until };
            self.rewrite(found, self.end, &bytes, &[], until)?;
        }
        self.end = if last { self.end } else { through.unwrap_or(self.end.max(found.first)) };
        Ok(())
    }

    fn frames(
        &mut self,
        found: &Found,
        header: &Header,
        last: bool,
        through: Option<Sequence>,
    ) -> Result<(), OpenError> {
        let bytes = self.read(found)?;
        let frames = Frames { seed: header.seed(), bytes: &bytes };
        self.note_age(header);
        let start = Position { at: HEADER_LEN, expected: header.first };
        let mut pieces = vec![Piece { start, end: self.replay(&frames, start) }];
        let mut position = pieces[0].end;
        let rest = if position.at < bytes.len() { frames.search(position) } else { Rest::default() };
        let known = through.unwrap_or(if last { rest.durable } else { 0 });
        let losses_before = self.losses();
        for piece in &rest.pieces {
            let lost = (position.expected, piece.start.expected - 1);
            let bytes_lost = (piece.start.at - position.at) as u64;
            let torn = last && rest.durable < position.expected && !rest.exhausted;
            if torn && lost.0 <= lost.1 {
                break;
            }
            self.damage(&found.name, position.at as u64, bytes_lost, Some(lost));
            position = self.replay(&frames, piece.start);
            pieces.push(*piece);
        }
        let lost = (position.expected, known);
        let is_torn = last && rest.durable < position.expected && !rest.exhausted;
        let bytes_left = (bytes.len() - position.at) as u64;
        if !is_torn && (bytes_left > 0 || lost.0 <= lost.1) {
            let until = if rest.exhausted { Sequence::MAX } else { known };
            self.damage(&found.name, position.at as u64, bytes_left, Some((lost.0, until)));
        }
        self.end = last_in(header, position).max(through.unwrap_or(0));
        if is_torn {
            self.torn(found, header, position, &rest, &bytes)?;
        }
        let orderly = last && self.checkpoint.content.orderly.is_some_and(|orderly| orderly.id == header.id);
        self.report.orderly = orderly && self.report.torn.is_none() && self.losses() == 0;
        if self.losses() > losses_before {
            if self.replaying {
                let until = if last { rest.durable } else { known };
                self.rewrite(found, header.follows, &bytes, &pieces, until)?;
            }
            return Ok(());
        }
        let len = if is_torn { position.at as u64 } else { found.len };
        self.close(found, self.end, len);
        Ok(())
    }

    /// Replays from here as far as frames are whole and in order.
    fn replay(&mut self, frames: &Frames<'_>, from: Position) -> Position {
        if !self.replaying {
            return frames.read(from, |_, _, _| {});
        }
        let Self { ledger, report, replay, mark, .. } = self;
        frames.read(from, |_, sequence, payload| {
            if sequence > *mark {
                ledger.register(sequence);
                report.records += 1;
                report.bytes += payload.len() as u64;
                replay(sequence, payload);
            }
        })
    }

    /// The end of the last segment. Even if nothing is torn it is synced: what a killed process had written is in the
    /// kernel's memory alone, and the next segment will say that it follows.
    fn torn(
        &mut self,
        found: &Found,
        header: &Header,
        position: Position,
        rest: &Rest,
        bytes: &[u8],
    ) -> Result<(), OpenError> {
        let offset = position.at as u64;
        let cut = found.len - offset;
        let missing = self.missing(Some(header));
        let behind = rest.pieces.iter().filter(|piece| piece.start.at > position.at);
        let records_after = behind.map(|piece| piece.end.expected - piece.start.expected).sum();
        if cut > 0 || missing > 0 {
            self.report.torn = Some(Torn { offset, records_after, missing, ..torn(&found.name, cut) });
        }
        if !self.replaying {
            return Ok(());
        }
        if records_after > 0 {
            // For those who want to look; a start does not depend on it.
            if let Err(error) = repair::keep_copy(self.storage, &found.name, bytes) {
                tracing::warn!("no copy of {} was kept: {error}", found.name);
            }
        }
        let finish = || {
            let file = self.storage.open(&found.name)?;
            if cut > 0 {
                file.truncate(offset)?;
            }
            file.sync()
        };
        finish().map_err(while_opening("cut off the torn end of a segment"))
    }

    /// Records that an orderly shutdown left and that are beyond the end.
    fn missing(&self, header: Option<&Header>) -> u64 {
        match self.checkpoint.content.orderly {
            Some(checkpoint::Orderly { id, next }) if header.is_none_or(|header| header.id == id) => {
                let from = header.map_or(self.end, |header| self.end.max(header.first - 1));
                (next - 1).saturating_sub(from)
            }
            _ => 0,
        }
    }

    fn read(&self, found: &Found) -> Result<Vec<u8>, OpenError> {
        let mut bytes = Vec::new();
        let read = self.storage.read(&found.name, u64::MAX, &mut bytes);
        read.map_err(while_opening("read a segment"))?;
        Ok(bytes)
    }

    fn rewrite(
        &mut self,
        found: &Found,
        follows: Sequence,
        bytes: &[u8],
        pieces: &[Piece],
        through: Sequence,
    ) -> Result<(), OpenError> {
        let rewrite = || {
            repair::keep_copy(self.storage, &found.name, bytes)?;
            repair::rewrite(self.storage, found.first, follows, bytes, pieces, through)
        };
        let closed = rewrite().map_err(while_opening("repair a segment"))?;
        self.closed.push_back(closed);
        Ok(())
    }

    fn close(&mut self, found: &Found, end: Sequence, bytes: u64) {
        self.closed.push_back(Closed { name: found.name.clone(), end, bytes });
    }

    /// Takes note of a damaged place, and of the records lost there that are not done.
    fn damage(&mut self, segment: &str, offset: u64, bytes: u64, lost: Option<(Sequence, Sequence)>) {
        let lost: Option<RangeInclusive<Sequence>> =
            lost.map(|(from, to)| from.max(self.mark + 1)..=to).filter(|lost| !lost.is_empty());
        self.replaying &= self.repair || lost.is_none();
        self.report.damage.push(Damage { segment: segment.to_owned(), offset, bytes, lost });
    }

    fn losses(&self) -> usize {
        self.report.damage.iter().filter(|damage| damage.lost.is_some()).count()
    }

    fn note_age(&mut self, header: &Header) {
        let age = Duration::from_millis(clock::wall_ms().saturating_sub(header.created));
        let now = clock::monotonic();
        self.ledger.note_time(header.first, now.checked_sub(age).unwrap_or(now));
    }

    fn finish(
        mut self,
        found: &[Found],
        options: &Options,
        started: Instant,
    ) -> Result<Recovered, OpenError> {
        if self.report.has_losses() && !self.repair {
            return Err(OpenError::Damaged(Box::new(self.report)));
        }
        // Left over from a crash; if they stay they are overwritten.
        let _ = self.storage.remove(segment::UNFINISHED);
        let content = self.checkpoint.content;
        let new = found.is_empty() && !self.checkpoint.exists();
        let next = match content.orderly {
            Some(orderly) if self.report.orderly => orderly.next,
            _ if new => 1,
            orderly => {
                let named = found.last().map_or(0, |last| last.first);
                self.end.max(self.mark).max(named).max(orderly.map_or(0, |orderly| orderly.next)) + JUMP
            }
        };
        self.report.next = next.max(options.first_sequence);
        self.ledger.skip_to(self.report.next);
        self.report.elapsed = clock::monotonic().saturating_duration_since(started);
        let Self { closed, ledger, end, checkpoint, report, .. } = self;
        Ok(Recovered { closed, ledger, end, checkpoint, report })
    }
}

fn torn(segment: &str, bytes: u64) -> Torn {
    Torn { segment: segment.to_owned(), offset: 0, bytes, records_after: 0, missing: 0 }
}

fn last_in(header: &Header, end: Position) -> Sequence {
    if end.expected == header.first { header.follows } else { end.expected - 1 }
}
