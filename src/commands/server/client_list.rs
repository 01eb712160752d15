//! `CLIENT LIST`, `INFO` and `KILL`: connections described, and those that options fit closed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::arguments::{Options, integer};
use super::super::spec::Context;
use super::super::table::COMMANDS;
use super::shown;
use crate::clients::{Client, Tracker};
use crate::clock;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};

/// One connection as `CLIENT LIST` shows it.
pub fn describe(client: &Client, tracker: Option<&Tracker>, now_ms: u64) -> String {
    let names = client.names.lock().clone();
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
    let queued = client.queued.load(Relaxed);
    let last = client.last_command.load(Relaxed);
    let command = if last == usize::MAX { "NULL" } else { COMMANDS.at(last).name.as_str() };
    let mut flags = String::new();
    for (set, letter) in [
        (client.monitors.load(Relaxed), 'O'),
        (client.is_subscribed(), 'P'),
        (queued > 0, 'x'),
        (client.blocked.lock().is_some(), 'b'),
        (tracker.is_some(), 't'),
        (tracker.is_some_and(|tracker| tracker.is_broken.load(Relaxed)), 'R'),
        (tracker.is_some_and(|tracker| tracker.options.broadcast), 'B'),
        (client.is_unix, 'U'),
        (client.no_evict.load(Relaxed), 'e'),
        (client.no_touch.load(Relaxed), 'T'),
    ] {
        flags.extend(set.then_some(letter));
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let (query, output) = (client.query_buffer.load(Relaxed), client.output_buffer.load(Relaxed));
    let transaction = client.transaction_memory.load(Relaxed);
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} watch={} \
         qbuf={query} qbuf-free=0 argv-mem=0 multi-mem={transaction} rbs=0 rbp=0 obl=0 oll=0 omem={output} \
         tot-mem={} events=r cmd={command} user={} redir={} resp={} lib-name={} lib-ver={}",
        client.id,
        client.address,
        client.local_address,
        client.fd,
        names.name,
        seconds(client.connected_ms),
        seconds(client.last_request_ms.load(Relaxed)),
        client.db.load(Relaxed),
        client.subscribed[0].load(Relaxed),
        client.subscribed[1].load(Relaxed),
        client.subscribed[2].load(Relaxed),
        queued as i64 - 1,
        client.watching.load(Relaxed),
        super::memory_stats::client_memory(client),
        names.user,
        tracker.map_or(-1, |tracker| tracker.options.redirect as i64),
        if client.resp3.load(Relaxed) { 3 } else { 2 },
        names.library,
        names.library_version,
    )
}

pub(super) fn info(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let tracker = context.session.tracking.as_deref();
    let text = describe(&context.session.client, tracker, clock::wall_ms()) + "\n";
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

pub(super) fn list(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut clients = context.instance.clients.list();
    clients.retain(|client| !client.is_killed());
    if args.len() == 4 && args.is(2, "type") {
        let is_meant = of_type(args.at(3))?;
        clients.retain(|client| is_meant(client));
    } else if args.len() > 3 && args.is(2, "id") {
        let ids =
            args.skip(3).iter().map(|id| integer(id).map_err(|_| ReplyError::fixed("ERR Invalid client ID")));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        clients.retain(|client| ids.contains(&(client.id as i64)));
    } else if args.len() != 2 {
        return Err(ReplyError::SYNTAX);
    }
    let now_ms = clock::wall_ms();
    let tracking = &context.instance.clients.tracking;
    let line = |client: &Arc<Client>| describe(client, tracking.tracker(client.id).as_deref(), now_ms) + "\n";
    let text: String = clients.iter().map(line).collect();
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// Which clients are of a type.
fn of_type(name: &[u8]) -> Result<fn(&Client) -> bool, ReplyError> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(|client| !client.is_subscribed()),
        b"pubsub" => Ok(Client::is_subscribed),
        b"master" | b"slave" | b"replica" => Ok(|_| false),
        _ => Err(ReplyError::showing("ERR Unknown client type '", name, "'")),
    }
}

/// The clients that are meant; of an option given twice, the last counts.
#[derive(Default)]
struct Filter {
    id: Option<u64>,
    is_of_type: Option<fn(&Client) -> bool>,
    address: Option<String>,
    local_address: Option<String>,
    user: Option<String>,
    skips: Option<u64>,
}

impl Filter {
    fn parse(args: Args<'_>, me: u64) -> Result<Self, ReplyError> {
        let mut filter = Self { skips: Some(me), ..Self::default() };
        let mut options = Options::new(args, 2);
        while !options.is_done() {
            if options.take_with("id", 1) {
                let id = integer(options.value()?).ok().filter(|id| *id > 0);
                let id = id.ok_or(ReplyError::fixed("ERR client-id should be greater than 0"))?;
                filter.id = Some(id as u64);
            } else if options.take_with("type", 1) {
                filter.is_of_type = Some(of_type(options.value()?)?);
            } else if options.take_with("addr", 1) {
                filter.address = Some(shown(options.value()?));
            } else if options.take_with("laddr", 1) {
                filter.local_address = Some(shown(options.value()?));
            } else if options.take_with("user", 1) {
                let user = shown(options.value()?);
                if user != "default" {
                    return Err(ReplyError::new(format!("ERR No such user '{user}'")));
                }
                filter.user = Some(user);
            } else if options.take_with("skipme", 1) {
                filter.skips = match options.value()?.to_ascii_lowercase().as_slice() {
                    b"yes" => Some(me),
                    b"no" => None,
                    _ => return Err(ReplyError::SYNTAX),
                };
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        Ok(filter)
    }

    fn means(&self, client: &Client) -> bool {
        self.id.is_none_or(|id| client.id == id)
            && self.is_of_type.is_none_or(|is_of_type| is_of_type(client))
            && self.address.as_ref().is_none_or(|address| client.address == *address)
            && self.local_address.as_ref().is_none_or(|address| client.local_address == *address)
            && self.user.as_ref().is_none_or(|user| client.names.lock().user == *user)
            && self.skips != Some(client.id)
    }
}

pub(super) fn kill(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let me = context.session.client.id;
    let old_form = args.len() == 3;
    let filter = if old_form {
        Filter { address: Some(shown(args.at(2))), ..Filter::default() }
    } else {
        Filter::parse(args, me)?
    };
    let mut killed = 0;
    for client in context.instance.clients.list().iter().filter(|client| filter.means(client)) {
        killed += 1;
        if client.id == me {
            context.session.closing = true;
        } else {
            client.kill();
        }
    }
    match (old_form, killed) {
        (false, _) => reply.count(killed),
        (true, 0) => return Err(ReplyError::fixed("ERR No such client")),
        (true, _) => reply.ok(),
    }
    Ok(())
}
