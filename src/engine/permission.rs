//! What the gate asks of a user's rules. See [`crate::acl`].

use std::sync::atomic::Ordering::Relaxed;

use super::worker::Worker;
use crate::acl::{Denied, Incident, Where};
use crate::clients::Session;
use crate::commands::acl;
use crate::commands::spec::Run;
use crate::commands::table::{COMMANDS, Command};
use crate::protocol::{Args, ReplyError};
use crate::tiers::local::Waiter;

impl Worker {
    /// Whether a restricted user may run a command.
    ///
    /// # Errors
    /// What he is told if not.
    #[cold]
    pub(super) fn permit(
        &self,
        session: &Session,
        command: &Command,
        args: Args<'_>,
    ) -> Result<(), ReplyError> {
        let rules = session.user.rules();
        if let Err(denied) = acl::check(&rules, command, args) {
            let reason = acl::reason(denied, &session.user.shown(), command);
            return Err(ReplyError::new(format!("NOPERM {reason}")));
        }
        if self.instance.upstream.is_some() && matches!(command.spec.run, Run::Script(_)) {
            return Err(ReplyError::fixed(
                "NOPERM scripts run upstream, where nobody knows what this server's users may do",
            ));
        }
        acl::check_sort(&rules, command, args)
    }

    /// The same for a command of a script.
    #[cold]
    pub(super) fn permit_in_script(
        &self,
        session: &Session,
        command: &Command,
        args: Args<'_>,
    ) -> Result<(), ReplyError> {
        let rules = session.user.rules();
        let Err(denied) = acl::check(&rules, command, args) else {
            return acl::check_sort(&rules, command, args);
        };
        self.note_denied(session, denied, command, args, Where::Lua);
        let reason = acl::reason(denied, &session.user.shown(), command);
        Err(ReplyError::new(format!("ERR ACL failure in script: {reason}")))
    }

    /// The same for a command of a transaction, which was allowed when it was queued.
    #[cold]
    pub(super) fn permit_in_exec(
        &self,
        session: &Session,
        command: &Command,
        args: Args<'_>,
    ) -> Result<(), ReplyError> {
        let Err(denied) = acl::check(&session.user.rules(), command, args) else { return Ok(()) };
        self.note_denied(session, denied, command, args, Where::Multi);
        let reason = match denied {
            Denied::Command => "no permission to execute the command or subcommand",
            Denied::Key(_) => "no permission to touch the specified keys",
            Denied::Channel(_) => "no permission to access one of the channels used as arguments",
        };
        Err(ReplyError::new(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: {reason}"
        )))
    }

    /// The same for all commands of a transaction that is about to go upstream.
    pub(super) fn permit_queued(&self, session: &Session) -> Result<(), ReplyError> {
        let queued = session.transaction.iter().flat_map(|transaction| &transaction.forwarded);
        for (index, args) in queued {
            match index {
                Some(index) => self.permit_in_exec(session, COMMANDS.at(*index), args.as_args())?,
                None => self.permit_unknown(session, args.as_args())?,
            }
        }
        Ok(())
    }

    /// The same for a command that upstream knows and this server does not: nobody knows what it does, so only who may do
    /// everything may run it.
    pub(super) fn permit_unknown(&self, session: &Session, args: Args<'_>) -> Result<(), ReplyError> {
        if !session.user.is_restricted() {
            return Ok(());
        }
        let text = format!("NOPERM User {} has no permissions to run the '", session.user.shown());
        Err(ReplyError::showing(&text, &args.at(0).to_ascii_lowercase(), "' command"))
    }

    /// Whether who waits may still run what it waits with.
    #[cold]
    pub(super) fn may_be_served(&self, waiter: &Waiter) -> bool {
        let Some(client) = self.instance.clients.get(waiter.client) else { return true };
        let user = self.instance.acl.get(client.names.lock().user.as_bytes());
        // A user who is gone may do nothing.
        user.is_some_and(|user| {
            let command = COMMANDS.at(waiter.command);
            !user.is_restricted() || acl::check(&user.rules(), command, waiter.args.as_args()).is_ok()
        })
    }

    /// Notes a request that the gate refused for its user's rules.
    #[cold]
    pub(super) fn note_refused(&self, session: &Session, args: Args<'_>) {
        let Ok(command) = COMMANDS.resolve(args) else { return };
        let place = acl::place_of(session);
        if let Err(denied) = acl::check(&session.user.rules(), command, args) {
            session.client.last_command.store(command.index, Relaxed);
            self.note_denied(session, denied, command, args, place);
        }
    }

    fn note_denied(
        &self,
        session: &Session,
        denied: Denied,
        command: &Command,
        args: Args<'_>,
        place: Where,
    ) {
        let incident = match denied {
            Denied::Command => Incident::Command,
            Denied::Key(_) => Incident::Key,
            Denied::Channel(_) => Incident::Channel,
        };
        let object = acl::object_of(denied, command, args);
        acl::note_denied(self.instance, session, incident, place, &object, &session.user.name);
    }
}
