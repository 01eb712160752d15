//! Commands held by `CLIENT PAUSE`: their connection waits, and tries them again.

use super::blocking::Blocked;
use super::pipeline::Step;
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::spec::{CommandSpec, OnTimeout, flag};
use crate::commands::table::{COMMANDS, Command};
use crate::protocol::Args;
use crate::tiers::local::Waiter;

impl Worker {
    /// Holds a command if there is a pause for it.
    #[cold]
    pub(super) fn hold(&self, session: &Session, command: &Command, args: Args<'_>) -> Option<Blocked> {
        let writes = |spec: &CommandSpec| spec.flags & (flag::WRITE | flag::MAY_REPLICATE) != 0;
        let is_write = writes(command.spec)
            || command.spec.name == "exec"
                && session.transaction.as_ref().is_some_and(|transaction| {
                    let forwarded = transaction.forwarded.iter().map(|(index, _)| index.as_ref());
                    transaction.queue.iter().any(|(index, _)| writes(COMMANDS.at(*index).spec))
                        || forwarded
                            .into_iter()
                            .any(|index| index.is_none_or(|index| writes(COMMANDS.at(*index).spec)))
                });
        let (waiter, millis) = self.instance.pause.hold(is_write, self.now_ms(), || {
            Waiter::new(
                session.client.id,
                session.db,
                Vec::new(),
                command.index,
                args.to_owned(),
                session.protocol,
            )
        })?;
        let (on_timeout, command) = (OnTimeout::NullArray, command.index);
        Some(Blocked { waiter, timeout_ms: Some(millis), on_timeout, command, measured_from: None })
    }

    /// Tries a held command again.
    pub fn try_again(&mut self, session: &mut Session, held: &Blocked, out: &mut Vec<u8>) -> Step {
        self.read_clock();
        self.instance.pause.forget(&held.waiter);
        let flow = self.execute(session, None, None, held.waiter.args.as_args(), out);
        self.step(flow, out)
    }
}
