//! What `CLIENT TRACKING` asks of the engine: what is read is noted under the locks of the command that reads it, and
//! messages go out between replies.

use std::sync::atomic::Ordering::Relaxed;

use super::worker::Worker;
use crate::clients::{Caching, Session};
use crate::commands::keys;
use crate::commands::spec::{Run, flag};
use crate::commands::table::{COMMANDS, Command};
use crate::config::Id;
use crate::protocol::Args;

impl Worker {
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

    /// What comes after each command of a client that is told of changes.
    #[cold]
    pub(super) fn after_tracked(session: &mut Session) {
        let last = session.client.last_command.load(Relaxed);
        let is_client = last != usize::MAX && COMMANDS.at(last).name.starts_with("client|");
        session.caching = match session.caching {
            Caching::Said => Caching::Due,
            Caching::Due if is_client || session.transaction.is_some() => Caching::Due,
            _ => Caching::Unsaid,
        };
    }
}
