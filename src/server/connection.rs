//! One connection: read, run, write.
//!
//! Requests are read into the thread's buffer and run from there; only what is left of an incomplete one is kept.
//! While a client does not take its replies, nothing more of it is read.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::stream::{Accepted, Stream};
use super::waiting::{pending_end, wait_end};
use super::workers::Bench;
use crate::clients::{Client, Session, Transaction};
use crate::config::Id;
use crate::engine::{Blocked, Pending, Step, WaitEnd};
use crate::instance::Instance;
use crate::protocol::RequestParser;

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

/// Serves a connection until it ends.
pub async fn serve(bench: Rc<RefCell<Bench>>, socket: Accepted, client: Arc<Client>) {
    let instance = bench.borrow().worker.instance;
    let _listed = Listed { instance, client: client.clone() };
    match socket.into_stream() {
        Ok(stream) => {
            let authenticated = instance.settings.text(Id::Requirepass).is_empty();
            let mut session = Session::new(client.clone(), authenticated);
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
                blocked: None,
                held: None,
            };
            if let Err(error) = connection.serve().await {
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
        }
        Err(error) => tracing::warn!(%error, "a new connection cannot be watched"),
    }
}

impl Connection {
    async fn serve(&mut self) -> io::Result<()> {
        let mut turn = Turn::Read;
        loop {
            turn = match turn {
                Turn::Read => self.turn().await?,
                Turn::Again => self.run_pending().await?,
                Turn::Blocked => {
                    self.wait().await?;
                    Turn::Read
                }
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
        if !self.wait_for_input().await? {
            return Ok(Turn::Close);
        }
        if !self.pending.is_empty() {
            return self.read_more().await;
        }
        let (consumed, read, step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            let read = match self.stream.try_read(&mut bench.input) {
                Ok(0) => return Ok(Turn::Close),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Read),
                Err(error) => return Err(error),
            };
            bench.worker.counters.input_bytes.add(read as u64);
            bench.output.clear();
            let input = &mut bench.input[..read];
            let progress = bench.worker.run(&mut self.session, &mut self.parser, input, &mut bench.output);
            self.pending.extend_from_slice(&bench.input[progress.consumed..read]);
            let sent = send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent);
            (progress.consumed, read, progress.step, sent)
        };
        if consumed < read {
            self.note_buffers();
        }
        self.after(step, sent).await
    }

    /// Reads behind what is pending, and runs it if a request may be complete now.
    async fn read_more(&mut self) -> io::Result<Turn> {
        match self.read_behind() {
            Ok(0) => return Ok(Turn::Close),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Read),
            Err(error) => return Err(error),
        }
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

    /// Reads what is there behind what is pending.
    fn read_behind(&mut self) -> io::Result<usize> {
        let bench = &mut *self.bench.borrow_mut();
        let pending = &mut self.pending;
        let wanted = self.parser.wanted().saturating_sub(pending.len());
        let read = if wanted > bench.input.len() {
            // Room for what is known to come, but never more than doubles what has come.
            if pending.capacity() == pending.len() {
                pending.reserve_exact(wanted.min(pending.len().max(bench.input.len())));
            }
            self.stream.try_read_buf(pending)?
        } else {
            let read = self.stream.try_read(&mut bench.input)?;
            pending.extend_from_slice(&bench.input[..read]);
            read
        };
        bench.worker.counters.input_bytes.add(read as u64);
        Ok(read)
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
            let sent = send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent);
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

    /// Waits for input; says whether to go on.
    async fn wait_for_input(&mut self) -> io::Result<bool> {
        let client = self.session.client.clone();
        loop {
            if let Some(stream) = &mut self.session.stream {
                tokio::select! {
                    biased;
                    ready = self.stream.readable() => return ready.map(|()| true),
                    () = client.woken() => {}
                    said = stream.next() => {
                        let Some(said) = said else { return Ok(false) };
                        self.unsent.extend_from_slice(&said);
                        stream.drain(&mut self.unsent);
                        self.bench.borrow().worker.counters.output_bytes.add(self.unsent.len() as u64);
                        self.flush().await?;
                    }
                }
                if !client.is_killed() && !self.instance.is_stopping() {
                    continue;
                }
            }
            if client.is_killed() || self.instance.is_stopping() {
                return Ok(false);
            }
            let idle = self.instance.settings.int(Id::Timeout);
            if idle <= 0 {
                tokio::select! {
                    biased;
                    ready = self.stream.readable() => return ready.map(|()| true),
                    () = client.woken() => {}
                }
            } else {
                tokio::select! {
                    biased;
                    ready = self.stream.readable() => return ready.map(|()| true),
                    () = client.woken() => {}
                    () = tokio::time::sleep(Duration::from_secs(idle as u64)) => return Ok(false),
                }
            }
        }
    }

    /// Sends what the socket did not take at once.
    async fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            self.session.client.output_buffer.store(self.unsent.len() - self.sent, Relaxed);
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
            }
            self.sent += send(&self.stream, &self.unsent[self.sent..])?;
        }
        self.unsent.clear();
        self.sent = 0;
        if self.unsent.capacity() > KEEP_CAPACITY {
            self.unsent = Vec::new();
        }
        self.session.client.output_buffer.store(0, Relaxed);
        Ok(())
    }

    /// Waits for what a blocked command waits for.
    async fn wait(&mut self) -> io::Result<()> {
        let Some(blocked) = self.blocked.take() else { return Ok(()) };
        let client = self.session.client.clone();
        self.instance.clients.set_blocked(&client, Some(blocked.waiter.clone()));
        let end = wait_end(&self.stream, &mut self.pending, self.instance, &client, &blocked).await;
        self.instance.clients.set_blocked(&client, None);
        {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            bench.worker.finish_wait(&mut self.session, &blocked, end, &mut bench.output);
            send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent)?;
        }
        if end == WaitEnd::Gone {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.flush().await
    }

    /// Waits for the end of a pause, and tries the held command again.
    async fn hold(&mut self) -> io::Result<Turn> {
        let Some(held) = &self.held else { return Ok(Turn::Read) };
        let client = self.session.client.clone();
        self.instance.clients.set_blocked(&client, Some(held.waiter.clone()));
        let end = wait_end(&self.stream, &mut self.pending, self.instance, &client, held).await;
        self.instance.clients.set_blocked(&client, None);
        if end == WaitEnd::Gone {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(held) = self.held.take() else { return Ok(Turn::Read) };
        let (step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            let step = bench.worker.try_again(&mut self.session, &held, &mut bench.output);
            (step, send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent))
        };
        self.after(step, sent).await
    }

    /// Waits for another tier, and goes on with what it brought.
    async fn pend(&mut self, mut pending: Pending) -> io::Result<Turn> {
        let client = self.session.client.clone();
        let end = pending_end(&self.stream, &mut self.pending, self.instance, &client, &mut pending).await;
        let Some(finished) = end else { return Err(io::ErrorKind::ConnectionAborted.into()) };
        let (step, sent) = {
            let bench = &mut *self.bench.borrow_mut();
            bench.output.clear();
            let step = bench.worker.resume(&mut self.session, &pending, finished, &mut bench.output);
            (step, send_replies(&self.stream, bench, &mut self.unsent, &mut self.sent))
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
) -> io::Result<()> {
    bench.worker.counters.output_bytes.add(bench.output.len() as u64);
    let sent = send(stream, &bench.output);
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
