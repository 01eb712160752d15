//! One connection: read, run, write.
//!
//! Requests are read into the thread's buffer and run from there; only what is left of an incomplete one is kept.
//! While a client does not take its replies, nothing more of it is read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::stream::Stream;
use super::waiting::{pending_end, unless_ended, wait_end};
use super::workers::{Bench, Dealt, READ_BUFFER};
use crate::clients::{Client, Session, Transaction};
use crate::clock;
use crate::config::Id;
use crate::engine::{Blocked, Pending, Step, Unacknowledged, WaitEnd};
use crate::instance::Instance;
use crate::protocol::{Reply, ReplyError, RequestParser};

/// Buffers above this size are given back once they are empty.
const KEEP_CAPACITY: usize = 16 * 1024;

struct Connection {
    stream: Stream,
    bench: Rc<RefCell<Bench>>,
    instance: &'static Instance,
    session: Session,
    parser: RequestParser,
    /// Input that could not be run yet.
    pending: Vec<u8>,
    /// Replies that the socket did not take yet.
    unsent: Vec<u8>,
    /// How much of them it took meanwhile.
    sent: usize,
    /// What has to be acknowledged before they may be sent, and where in them that begins to matter.
    unacknowledged: Option<Unacknowledged>,
    /// What it waits for. Whatever ends the connection, the keys must hear of it.
    blocked: Option<Blocked>,
    /// The command that a pause holds back.
    held: Option<Blocked>,
}

/// Takes the client off the list when its task ends, even by a panic: its place must not stay taken.
struct Listed {
    instance: &'static Instance,
    client: Arc<Client>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.instance.clients.set_blocked(&self.client, None);
        self.instance.clients.remove(self.client.id);
    }
}

/// What ended a turn.
enum Turn {
    /// Read more.
    Read,
    /// Run what is pending.
    Again,
    /// Wait for keys.
    Blocked,
    /// Wait for a pause to end.
    Held,
    /// Wait for another tier.
    Pending(Pending),
    /// Close.
    Close,
}

/// What ended the ordinary turns.
enum Ordinary {
    /// A run that asks for more than to read on.
    Ran(Step, io::Result<()>),
    /// Something that they are not made for.
    Unusual,
    /// Close.
    Closed,
}

/// What a wait for input brought.
enum Heard {
    /// So many bytes; none at the end.
    Input(usize),
    /// A message for the client.
    Message(Vec<u8>),
    /// The source of messages has ended.
    Nothing,
}

/// Serves a connection until it ends.
pub async fn serve(bench: Rc<RefCell<Bench>>, dealt: Dealt) {
    let Dealt { socket, tls, client } = dealt;
    let instance = bench.borrow().worker.instance;
    let listed = Listed { instance, client: client.clone() };
    let ring = bench.borrow().ring.clone();
    // Whoever takes his time to agree on keys can be let go meanwhile.
    let stream = tokio::select! {
        stream = socket.into_stream(ring.as_ref(), tls) => stream,
        () = killed(&client) => return,
    };
    match stream {
        Ok(stream) => {
            let mut session =
                Session::new(client.clone(), instance.acl.default_user().clone(), instance.acl.is_open());
            session.select(instance.first_db());
            let mut connection = Connection {
                stream,
                bench: bench.clone(),
                instance,
                session,
                parser: RequestParser::default(),
                pending: Vec::new(),
                unsent: Vec::new(),
                sent: 0,
                unacknowledged: None,
                blocked: None,
                held: None,
            };
            if let Err(error) = connection.serve_and_send().await {
                tracing::debug!(client = client.id, %error, "connection lost");
            }
            if let Some(held) = &connection.held {
                instance.pause.forget(&held.waiter);
            }
            let worker = &mut bench.borrow_mut().worker;
            if let Some(blocked) = connection.blocked.take() {
                worker.finish_wait(&mut connection.session, &blocked, WaitEnd::Gone, &mut Vec::new());
            }
            worker.end_session(&mut connection.session);
            // Off the list before the peer sees the end, which may connect again at once.
            drop(listed);
            drop(connection);
        }
        Err(error) => tracing::debug!(client = client.id, %error, "a connection did not come about"),
    }
}

/// Resolves when the client is to be let go.
async fn killed(client: &Client) {
    poll_fn(|context| {
        while !client.is_killed() {
            ready!(client.poll_woken(context));
        }
        Poll::Ready(())
    })
    .await;
}

impl Connection {
    /// Serves until the end, and lets the last replies go out.
    async fn serve_and_send(&mut self) -> io::Result<()> {
        self.serve().await?;
        tokio::select! {
            sent = self.stream.sent() => sent,
            () = killed(&self.session.client) => Ok(()),
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        let mut turn = Turn::Read;
        loop {
            turn = match turn {
                Turn::Read => self.turn().await?,
                Turn::Again => self.run_pending().await?,
                Turn::Blocked => self.wait().await?,
                Turn::Held => self.hold().await?,
                Turn::Pending(pending) => self.pend(pending).await?,
                Turn::Close => return Ok(()),
            }
        }
    }

    /// Reads once and runs what came.
    async fn turn(&mut self) -> io::Result<Turn> {
        if !self.pending.is_empty() && !self.parser.is_partial() {
            return self.run_pending().await;
        }
        match poll_fn(|context| self.poll_ordinary(context)).await? {
            Ordinary::Ran(step, sent) => return self.after(step, sent).await,
            Ordinary::Closed => return Ok(Turn::Close),
            Ordinary::Unusual => {}
        }
        let read = self.read().await?;
        if read == 0 {
            return Ok(Turn::Close);
        }
        if !self.pending.is_empty() {
            return self.run_more().await;
        }
        let (step, sent) = self.run_read(read);
        self.after(step, sent).await
    }

    /// The turns of most connections, one after the other: whole requests are read, run and answered at once. They make no
    /// future for each, which at a pipeline of 1 is a good part of what a request costs here.
    fn poll_ordinary(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Ordinary>> {
        loop {
            let client = &self.session.client;
            if client.is_killed() || self.instance.is_stopping() {
                return Poll::Ready(Ok(Ordinary::Closed));
            }
            let idle = self.instance.settings.int(Id::Timeout);
            if !self.pending.is_empty() || self.session.stream.is_some() || idle > 0 {
                return Poll::Ready(Ok(Ordinary::Unusual));
            }
            let read = {
                let bench = &mut *self.bench.borrow_mut();
                let mut buffer = ReadBuf::new(&mut bench.input);
                match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                    Poll::Ready(Ok(())) => Some(buffer.filled().len()),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => None,
                }
            };
            let Some(read) = read else {
                if client.pushes.is_waiting() {
                    return Poll::Ready(Ok(Ordinary::Unusual));
                }
                // Whoever kills the client, sends it a message or stops the server wakes this task.
                ready!(client.poll_woken(context));
                continue;
            };
            self.bench.borrow().worker.counters.input_bytes.add(read as u64);
            if read == 0 {
                return Poll::Ready(Ok(Ordinary::Closed));
            }
            let (step, sent) = self.run_read(read);
            let is_done = self.unsent.is_empty() && self.unacknowledged.is_none();
            let goes_on = matches!(step, Step::Continue) && is_done && self.session.transaction.is_none();
            if !goes_on || sent.is_err() {
                return Poll::Ready(Ok(Ordinary::Ran(step, sent)));
            }
        }
    }

    /// Runs what was read into the thread's buffer, with nothing pending before it.
    fn run_read(&mut self, read: usize) -> (Step, io::Result<()>) {
        let (consumed, step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            let input = &mut bench.input[..read];
            let progress = bench.worker.run(&mut self.session, &mut self.parser, input, &mut bench.output);
            self.pending.extend_from_slice(&bench.input[progress.consumed..read]);
            let sent =
                send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent, &mut self.unacknowledged);
            (progress.consumed, progress.step, sent)
        };
        if consumed < read {
            self.note_buffers();
        }
        (step, sent)
    }

    /// Runs what is pending with what was read behind it, if a request may be complete now.
    async fn run_more(&mut self) -> io::Result<Turn> {
        if self.is_over_limit() {
            return Ok(Turn::Close);
        }
        if self.pending.len() < self.parser.wanted() {
            self.note_buffers();
            return Ok(Turn::Read);
        }
        self.run_pending().await
    }

    /// Whether more was sent than may wait to be run: requests not complete, and those queued for a transaction.
    fn is_over_limit(&self) -> bool {
        // Places in a request have 32 bits.
        let limit = self.instance.settings.int(Id::ClientQueryBufferLimit).min(u32::MAX.into());
        let queued = self.session.transaction.as_ref().map_or(0, Transaction::memory);
        let is_over = (self.pending.len() + queued) as i64 > limit;
        if is_over {
            tracing::warn!(client = self.session.client.id, "closing: the query buffer limit is exceeded");
        }
        is_over
    }

    /// Runs what is pending.
    async fn run_pending(&mut self) -> io::Result<Turn> {
        let (step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            let progress =
                bench.worker.run(&mut self.session, &mut self.parser, &mut self.pending, &mut bench.output);
            self.pending.drain(..progress.consumed);
            if self.pending.is_empty() && self.pending.capacity() > KEEP_CAPACITY {
                self.pending = Vec::new();
            }
            let sent =
                send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent, &mut self.unacknowledged);
            (progress.step, sent)
        };
        self.note_buffers();
        self.after(step, sent).await
    }

    async fn after(&mut self, step: Step, sent: io::Result<()>) -> io::Result<Turn> {
        let turn = match step {
            Step::Continue | Step::Flush if self.session.transaction.is_some() && self.is_over_limit() => {
                Turn::Close
            }
            Step::Continue => Turn::Read,
            Step::Flush => Turn::Again,
            Step::Close => Turn::Close,
            Step::Blocked(blocked) => {
                self.blocked = Some(blocked);
                Turn::Blocked
            }
            Step::Held(held) => {
                self.held = Some(held);
                Turn::Held
            }
            Step::Pending(pending) => Turn::Pending(pending),
        };
        sent?;
        if !self.unsent.is_empty() {
            self.flush().await?;
        }
        Ok(turn)
    }

    /// Waits for input and reads it: behind what is pending, or, if that is nothing, into the thread's buffer, which
    /// others use after the next await. Returns how much that was; 0 says to close.
    async fn read(&mut self) -> io::Result<usize> {
        loop {
            match self.read_or_hear().await? {
                Heard::Input(read) => return Ok(read),
                Heard::Nothing => return Ok(0),
                Heard::Message(message) => {
                    self.unsent.extend_from_slice(&message);
                    if let Some(messages) = &mut self.session.stream {
                        messages.drain(&mut self.unsent);
                    }
                    self.bench.borrow().worker.counters.output_bytes.add(self.unsent.len() as u64);
                    self.flush().await?;
                }
            }
        }
    }

    /// Reads, or takes a message that came of itself to a client with a connection of its own upstream.
    async fn read_or_hear(&mut self) -> io::Result<Heard> {
        let Self { stream, bench, pending, parser, session, instance, .. } = self;
        let wanted = parser.wanted().saturating_sub(pending.len());
        let read = async {
            if wanted > READ_BUFFER && !pending.is_empty() {
                // Room for what is known to come, but never more than doubles what has come.
                if pending.capacity() == pending.len() {
                    pending.reserve_exact(wanted.min(pending.len().max(READ_BUFFER)));
                }
                return stream.read_buf(pending).await;
            }
            poll_fn(|context| {
                let bench = &mut *bench.borrow_mut();
                let mut buffer = ReadBuf::new(&mut bench.input);
                ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
                let read = buffer.filled();
                if !pending.is_empty() {
                    pending.extend_from_slice(read);
                }
                Poll::Ready(Ok(read.len()))
            })
            .await
        };
        let read = unless_ended(read, &session.client, instance);
        let pushed = async {
            poll_fn(|_| if session.client.pushes.is_waiting() { Poll::Ready(()) } else { Poll::Pending })
                .await;
            session.client.pushes.take()
        };
        let read = match &mut session.stream {
            // Whoever pushes wakes this task.
            None => tokio::select! {
                biased;
                read = read => read?,
                message = pushed => return Ok(Heard::Message(message)),
            },
            Some(messages) => tokio::select! {
                biased;
                read = read => read?,
                message = messages.next() => {
                    return Ok(message.map_or(Heard::Nothing, |message| Heard::Message(message.to_vec())));
                }
                message = pushed => return Ok(Heard::Message(message)),
            },
        };
        self.bench.borrow().worker.counters.input_bytes.add(read as u64);
        Ok(Heard::Input(read))
    }

    /// Sends what the socket did not take at once.
    async fn flush(&mut self) -> io::Result<()> {
        let acknowledged = match &self.unacknowledged {
            None => Ok(()),
            // They were not tried before.
            Some(_) => {
                let acknowledged = self.acknowledged().await;
                self.sent += send(&self.stream, &self.unsent[self.sent..])?;
                acknowledged
            }
        };
        let mut over_since = None;
        while self.sent < self.unsent.len() {
            let waiting = self.unsent.len() - self.sent;
            self.session.client.output_buffer.store(waiting, Relaxed);
            let limits = self.instance.settings.output_limits();
            let limit = if self.session.is_subscribed { limits.pubsub } else { limits.normal };
            let is_over = |bytes: i64| bytes > 0 && waiting as i64 > bytes;
            if !is_over(limit.soft) {
                over_since = None;
            }
            let now = clock::monotonic();
            let soft_end = is_over(limit.soft)
                .then(|| *over_since.get_or_insert(now) + Duration::from_secs(limit.soft_seconds as u64));
            if is_over(limit.hard) || soft_end.is_some_and(|end| end <= now) {
                tracing::warn!(
                    client = self.session.client.id,
                    "closing: the output buffer limit is exceeded"
                );
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let idle = self.instance.settings.int(Id::Timeout);
            tokio::select! {
                ready = self.stream.writable() => ready?,
                () = self.session.client.woken() => {
                    if self.session.client.is_killed() {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                () = tokio::time::sleep(Duration::from_secs(idle.max(0) as u64)), if idle > 0 => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                () = tokio::time::sleep_until(soft_end.unwrap_or(now).into()), if soft_end.is_some() => continue,
            }
            self.sent += send(&self.stream, &self.unsent[self.sent..])?;
        }
        self.unsent.clear();
        self.sent = 0;
        if self.unsent.capacity() > KEEP_CAPACITY {
            self.unsent = Vec::new();
        }
        self.session.client.output_buffer.store(0, Relaxed);
        acknowledged
    }

    /// Waits until the replies may be sent. If that will never be, an error takes the place of those that it concerns, and
    /// the connection ends: what its client sent is done in the cache, and whether it is safe is not known.
    async fn acknowledged(&mut self) -> io::Result<()> {
        let Some(Unacknowledged { sequence, begins }) = self.unacknowledged.take() else { return Ok(()) };
        let Some(tier) = self.instance.database() else { return Ok(()) };
        let Err(error) = tier.acknowledged(sequence).await else { return Ok(()) };
        self.unsent.truncate(begins);
        let error = ReplyError::new(format!("IOERR the write may be lost: {error}"));
        Reply::new(&mut self.unsent, self.session.protocol).error(&error);
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Waits for what a blocked command waits for.
    async fn wait(&mut self) -> io::Result<Turn> {
        let Some(blocked) = self.blocked.take() else { return Ok(Turn::Read) };
        let client = self.session.client.clone();
        self.instance.clients.set_blocked(&client, Some(blocked.waiter.clone()));
        let end = wait_end(&mut self.stream, &mut self.pending, self.instance, &client, &blocked).await;
        self.instance.clients.set_blocked(&client, None);
        let (step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            let step = bench.worker.finish_wait(&mut self.session, &blocked, end, &mut bench.output);
            (
                step,
                send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent, &mut self.unacknowledged),
            )
        };
        if end == WaitEnd::Gone {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.after(step, sent).await
    }

    /// Waits for the end of a pause, and tries the held command again.
    async fn hold(&mut self) -> io::Result<Turn> {
        let Some(held) = &self.held else { return Ok(Turn::Read) };
        let client = self.session.client.clone();
        self.instance.clients.set_blocked(&client, Some(held.waiter.clone()));
        let end = wait_end(&mut self.stream, &mut self.pending, self.instance, &client, held).await;
        self.instance.clients.set_blocked(&client, None);
        if end == WaitEnd::Gone {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(held) = self.held.take() else { return Ok(Turn::Read) };
        let (step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            let step = bench.worker.try_again(&mut self.session, &held, &mut bench.output);
            (
                step,
                send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent, &mut self.unacknowledged),
            )
        };
        self.after(step, sent).await
    }

    /// Waits for another tier, and goes on with what it brought.
    async fn pend(&mut self, mut pending: Pending) -> io::Result<Turn> {
        let client = self.session.client.clone();
        let end =
            pending_end(&mut self.stream, &mut self.pending, self.instance, &client, &mut pending).await;
        let Some(finished) = end else { return Err(io::ErrorKind::ConnectionAborted.into()) };
        let (step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            let step = bench.worker.resume(&mut self.session, &pending, finished, &mut bench.output);
            (
                step,
                send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent, &mut self.unacknowledged),
            )
        };
        self.after(step, sent).await
    }

    fn note_buffers(&self) {
        self.session.client.query_buffer.store(self.pending.len(), Relaxed);
    }
}

/// Sends the replies in the thread's buffer; what the socket does not take goes to `unsent`, which is empty.
fn send_replies(
    stream: &Stream,
    bench: &mut Bench,
    unsent: &mut Vec<u8>,
    already_sent: &mut usize,
    unacknowledged: &mut Option<Unacknowledged>,
) -> io::Result<()> {
    bench.worker.counters.output_bytes.add(bench.output.len() as u64);
    *unacknowledged = bench.worker.take_unacknowledged();
    let sent = if unacknowledged.is_some() { Ok(0) } else { send(stream, &bench.output) };
    let is_large = bench.output.capacity() > super::workers::KEEP_OUTPUT;
    if let Ok(sent) = sent
        && sent < bench.output.len()
    {
        if is_large && bench.output.capacity() / 5 <= bench.output.len() / 4 {
            // Not copied: there would be two of it for a moment.
            (*unsent, *already_sent) = (std::mem::take(&mut bench.output), sent);
        } else {
            unsent.extend_from_slice(&bench.output[sent..]);
        }
    }
    if is_large {
        bench.output = Vec::with_capacity(KEEP_CAPACITY);
    }
    sent.map(drop)
}

/// Writes what the socket takes.
fn send(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.try_write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
