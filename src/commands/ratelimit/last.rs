//! The limit that was asked for last.
//!
//! Nearly every call of `RATELIMIT.TAKE` asks for what the one before it asked for, with another key: the same words are
//! not read again. Measured in `benches/ratelimit`.

use smallvec::SmallVec;

use super::request::{Limit, Request};
use crate::config::Algorithm;
use crate::protocol::{Args, ReplyError, Span};
use crate::types::equality::same_bytes;

/// More bytes of arguments than any limit has that is asked for again and again.
const MAX_TEXT: usize = 128;

/// The arguments behind a key, as they lay in the read buffer, and what they say.
#[derive(Default)]
pub struct LastLimit {
    text: SmallVec<[u8; 64]>,
    /// Where in the text each argument lies. Empty if there is none to be found again.
    spans: SmallVec<[Span; 6]>,
    limit: Limit,
}

impl LastLimit {
    /// What the arguments behind the key ask for, and the identifier among them.
    ///
    /// # Errors
    /// As of the command.
    #[inline(always)]
    pub(super) fn read<'a>(&mut self, args: Args<'a>) -> Result<(&Limit, Option<&'a [u8]>), ReplyError> {
        if self.is_of(args) {
            return Ok((&self.limit, None));
        }
        self.parse(args)
    }

    /// Whether the limit that will be asked for next is probably kept as a log.
    pub fn is_log(&self) -> bool {
        self.limit.algorithm == Algorithm::Log
    }

    /// Whether the arguments are those of the last limit. If both bytes and places are the same, so are they.
    #[inline(always)]
    fn is_of(&self, args: Args<'_>) -> bool {
        let (text, spans) = args.behind(2);
        let begin = spans.first().map_or(0, |span| span.start);
        let same = |(span, known): (&Span, &Span)| span.start - begin == known.start && span.len == known.len;
        spans.len() == self.spans.len()
            && spans.iter().zip(&self.spans).all(same)
            && same_bytes(text, &self.text)
    }

    #[cold]
    fn parse<'a>(&mut self, args: Args<'a>) -> Result<(&Limit, Option<&'a [u8]>), ReplyError> {
        let Request { limit, id } = Request::parse(args, true)?;
        let (text, spans) = args.behind(2);
        self.limit = limit;
        self.spans.clear();
        if id.is_none() && text.len() <= MAX_TEXT {
            let begin = spans.first().map_or(0, |span| span.start);
            self.text = SmallVec::from_slice(text);
            self.spans.extend(spans.iter().map(|span| Span { start: span.start - begin, ..*span }));
        }
        Ok((&self.limit, id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::OwnedArgs;

    proptest! {
        /// Whatever was asked for before, a call is read as one that is the first; however its words run together.
        #[test]
        fn what_is_remembered_changes_nothing(
            calls in prop::collection::vec(
                (prop::sample::select(vec![
                    "10 20", "102 0", "1 020", "10 20 COST 1", "10 20 COST 2", "10 020", "10 20 ID a",
                    "10 20 ID b", "10 20 ALGORITHM gcra", "10 20 ALGORITHM gcra BURST 1", "0 20", "10",
                    "10 20 COST 1 COST 2",
                ]), 0usize..3),
                1..40,
            ),
        ) {
            let mut last = LastLimit::default();
            for (text, key) in calls {
                let key = "k".repeat(key);
                let words = ["take", &key].into_iter().chain(text.split(' '));
                let owned = OwnedArgs::from_slices(words.map(str::as_bytes));
                let args = owned.as_args();
                let fresh = if args.len() < 4 { continue } else { Request::parse(args, true) };
                let known = last.read(args).map(|(limit, id)| (*limit, id));
                prop_assert_eq!(known, fresh.map(|request| (request.limit, request.id)));
            }
        }
    }
}
