//! Rate limits within a transaction that upstream runs: each call is sent as the script that decides on it, among the other
//! commands, and what the script says is made the call's reply within that of `EXEC`.

use smallvec::SmallVec;

use super::limits::{decision, run_of, share};
use super::touch::Touch;
use super::worker::Worker;
use crate::commands::ratelimit::{What, asked};
use crate::commands::spec::Run;
use crate::commands::table::Command;
use crate::config::LimitScope;
use crate::config::upstream::KeyTier;
use crate::instance::Instance;
use crate::protocol::{Args, OwnedArgs, Protocol, Reply, ReplyError};
use crate::ratelimit::remote::Question;
use crate::tiers::upstream::{self, Form, Maker, Script, Upstream, elements, encode};
use crate::types::hasher::hash_bytes;

/// A call.
pub(super) struct InBlock {
    command: &'static Command,
    args: OwnedArgs,
    question: Option<Question<'static>>,
    /// None if the call is an error, which its reply will be.
    run: Option<upstream::Run>,
}

impl Worker {
    /// Whether upstream can decide on a call within a transaction. One that is an error can be queued as well, as ever.
    pub(super) fn is_decided_in_block(&self, upstream: &Upstream, command: &Command, args: Args<'_>) -> bool {
        let instance = self.instance;
        if !matches!(command.spec.run, Run::Limit(_))
            || instance.config.sharing.scope(true) == LimitScope::Local
            || instance.shared_database().is_some()
        {
            return false;
        }
        match asked(command.spec.name, args, &instance.limits) {
            Ok(Some(asked)) => asked.keys.iter().all(|key| upstream.tier_of(key) != Some(KeyTier::Local)),
            Ok(None) => false,
            Err(_) => true,
        }
    }
}

impl InBlock {
    /// The call of these arguments.
    pub(super) fn of(instance: &Instance, command: &'static Command, args: &OwnedArgs, db: usize) -> Self {
        let mut call = Self { command, args: args.clone(), question: None, run: None };
        if let Ok(Some(mut asked)) = asked(command.spec.name, args.as_args(), &instance.limits) {
            if instance.config.sharing.scope(true) == LimitScope::Leased {
                share(&mut asked, db, instance);
            }
            call.run = Some(run_of(&asked, db));
            if let What::Decide(question) = asked.what {
                call.question = Some(Question { id: None, ..question });
            }
        }
        call
    }

    /// What is sent in its place: with the script's text, unless the transaction `has` it already. Whether upstream knows the
    /// script from before does not matter: there is no second try within a transaction.
    pub(super) fn encode(&self, has: &mut SmallVec<[&'static Script; 4]>, to: &mut Vec<u8>) {
        let Some(run) = &self.run else { return encode([&b"PING"[..]].into_iter(), to) };
        let is_known = has.iter().any(|script| std::ptr::eq(*script, run.script));
        run.encode(is_known, to);
        if !is_known {
            has.push(run.script);
        }
    }

    pub(super) fn touch(&self) -> Touch {
        let Some(run) = &self.run else { return Touch::Nothing };
        Touch::Writes(run.keys.iter().map(|key| (hash_bytes(key), key.clone())).collect())
    }

    /// Makes what upstream said the call's reply.
    fn reply(&self, instance: &Instance, said: &[u8], out: &mut Vec<u8>) {
        // All that such a call replies is the same in both protocols.
        let mut reply = Reply::new(out, Protocol::Resp2);
        let undecided =
            ReplyError::fixed("UPSTREAMDOWN the limit is kept upstream, which did not decide on it");
        let result = match asked(self.command.spec.name, self.args.as_args(), &instance.limits) {
            Ok(Some(asked)) => decision(self.question.as_ref(), Ok(said.into()))
                .reply(&asked, instance, &mut reply)
                .unwrap_or(Err(undecided)),
            Ok(None) => Err(undecided),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            instance.telemetry.count_error(error.code());
            reply.error(&error);
        }
    }
}

/// The form of a transaction's reply, `rest` being that of one without calls of rate limiters.
pub(super) fn with_limits(instance: &'static Instance, limits: Vec<Option<InBlock>>, rest: Form) -> Form {
    if limits.iter().all(Option::is_none) {
        return rest;
    }
    Form::Made(Maker::new(move |frame| {
        // A transaction that was aborted, or refused as a whole, is no array.
        let said = elements(frame).filter(|said| said.len() == limits.len());
        let looks = rest.of(frame);
        let (Some(said), Some(look)) = (said, elements(&looks)) else { return looks };
        let mut out = format!("*{}\r\n", said.len()).into_bytes();
        for ((said, look), limit) in said.into_iter().zip(look).zip(&limits) {
            match limit {
                Some(limit) => limit.reply(instance, said, &mut out),
                None => out.extend_from_slice(look),
            }
        }
        out.into()
    }))
}
