//! What `CLIENT TRACKING` asks of the engine: what is read is noted under the locks of the command that reads it, and
//! messages go out between replies.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::execute::Flow;
use super::touch::Touch;
use super::worker::Worker;
use crate::clients::{Caching, Session, Tracker};
use crate::commands::keys;
use crate::commands::spec::{Run, flag};
use crate::commands::table::{COMMANDS, Command};
use crate::config::Id;
use crate::instance::Instance;
use crate::protocol::Args;

/// What a client that is told of changes reads upstream, with a stamp of before.
pub(super) struct Reads {
    instance: &'static Instance,
    tracker: Arc<Tracker>,
    keys: Vec<(Box<[u8]>, u64)>,
}

impl Reads {
    /// The replies are there: from here on, changes are told.
    #[cold]
    pub fn note(&self) {
        let most = self.instance.settings.int(Id::TrackingTableMaxKeys) as usize;
        for (key, stamp) in &self.keys {
            self.instance.clients.note_read_since(&self.tracker, key, *stamp, most);
        }
    }

    /// They came by a way on which upstream does not tell of changes: the client is not to keep them.
    #[cold]
    pub fn tell_at_once(&self) {
        for (key, _) in &self.keys {
            self.instance.clients.tell_at_once(&self.tracker, key);
        }
    }
}

impl Worker {
    /// What a client reads upstream, if it wants to be told when it changes. To be asked before anything is looked at.
    #[inline]
    pub(super) fn reads_of<'k>(
        &self,
        session: &Session,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Option<Box<Reads>> {
        let tracker = session.tracking.as_ref()?;
        if !tracker.notes(session.caching != Caching::Unsaid) {
            return None;
        }
        let tracking = &self.instance.clients.tracking;
        let keys = keys.map(|key| (key.into(), tracking.stamp(key))).collect();
        Some(Box::new(Reads { instance: self.instance, tracker: tracker.clone(), keys }))
    }

    /// The same for all that a request touches, if it only reads.
    pub(super) fn reads_touched(&self, session: &Session, touch: &Touch) -> Option<Box<Reads>> {
        let Touch::Reads(keys) = touch else { return None };
        self.reads_of(session, keys.iter().map(|(_, key)| &**key))
    }

    /// Notes what a command reads, for a client that wants to be told when it changes. The keys' locks are held.
    #[cold]
    pub(super) fn note_reads(&self, session: &Session, command: &Command, args: Args<'_>) {
        let Some(tracker) = &session.tracking else { return };
        if !command.spec.has(flag::READONLY)
            || matches!(command.spec.run, Run::Script(_))
            || !tracker.notes(session.caching != Caching::Unsaid)
        {
            return;
        }
        let most = self.instance.settings.int(Id::TrackingTableMaxKeys) as usize;
        for (index, _) in keys::extract(command.spec, args).unwrap_or_default() {
            self.instance.clients.note_read(tracker, args.at(index), most);
        }
    }

    /// What comes after each command while any client is told of changes.
    #[cold]
    pub(super) fn after_tracked(session: &mut Session, flow: &Flow, out: &mut Vec<u8>) {
        if session.caching != Caching::Unsaid {
            let last = session.client.last_command.load(Relaxed);
            let is_client = last != usize::MAX && COMMANDS.at(last).name.starts_with("client|");
            session.caching = match session.caching {
                Caching::Said => Caching::Due,
                Caching::Due if is_client || session.transaction.is_some() => Caching::Due,
                _ => Caching::Unsaid,
            };
        }
        // Behind the replies of all that this client has run.
        if session.client.pushes.is_waiting() && !matches!(flow, Flow::Pending(_)) {
            out.extend_from_slice(&session.client.pushes.take());
        }
    }
}
