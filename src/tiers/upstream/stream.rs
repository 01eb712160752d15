//! A connection of one client's own that goes on saying things: subscriptions, and `MONITOR`.
//!
//! A task passes on what upstream says, whole frames in their order. Behind each request it sends a `PING` with a text of
//! its own, so that it is known when upstream has said all there is to say to the request; that reply is kept back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};

use super::Upstream;
use super::connect::encode;
use super::frame;

/// A client that lets so many bytes wait is given up, as Redis does.
const MAX_WAITING: usize = 32 << 20;
const SETTLED: &[u8] = b"anteroom:settled";

/// The client's end.
#[derive(Debug)]
pub struct Stream {
    requests: mpsc::UnboundedSender<Vec<u8>>,
    said: mpsc::UnboundedReceiver<Box<[u8]>>,
    timeout: Duration,
    shared: Arc<Shared>,
    is_monitor: bool,
}

#[derive(Debug, Default)]
struct Shared {
    /// Channels and patterns subscribed to, and channels of shards.
    subscriptions: [AtomicUsize; 2],
    /// Requests that upstream has not settled.
    owed: AtomicUsize,
    settled: Notify,
    /// Bytes that the client has not taken.
    waiting: AtomicUsize,
}

impl Stream {
    /// Opens a stream in a task of this thread.
    pub fn open(
        upstream: &Arc<Upstream>,
        resp3: bool,
        db: usize,
        slot: Option<u16>,
        is_monitor: bool,
    ) -> Self {
        let (requests, asked) = mpsc::unbounded_channel();
        let (say, said) = mpsc::unbounded_channel();
        let timeout = upstream.config.timeout;
        let shared = Arc::new(Shared::default());
        tokio::task::spawn_local(relay(
            upstream.clone(),
            (resp3, db, slot),
            asked,
            say,
            shared.clone(),
            is_monitor,
        ));
        Self { requests, said, timeout, shared, is_monitor }
    }

    /// Sends a request.
    pub fn send(&self, request: Vec<u8>) {
        self.shared.owed.fetch_add(1, Ordering::AcqRel);
        // If the task has ended, so will the client's connection.
        drop(self.requests.send(request));
    }

    /// Whether it is a `MONITOR`'s.
    pub fn is_monitor(&self) -> bool {
        self.is_monitor
    }

    /// Whether upstream has answered all requests.
    pub fn is_settled(&self) -> bool {
        self.shared.owed.load(Ordering::Acquire) == 0
    }

    /// Whether it has, and nothing is subscribed to.
    pub fn is_over(&self) -> bool {
        let subscribed = self.shared.subscriptions.iter().any(|count| count.load(Ordering::Acquire) > 0);
        self.is_settled() && !subscribed && !self.is_monitor
    }

    /// Resolves when upstream has answered all requests, is gone, or has taken too long.
    pub fn settled(&self) -> impl Future<Output = ()> + use<> {
        let (shared, requests, timeout) = (self.shared.clone(), self.requests.clone(), self.timeout);
        async move {
            let late = tokio::time::sleep(timeout);
            tokio::pin!(late);
            while shared.owed.load(Ordering::Acquire) > 0 {
                tokio::select! {
                    () = shared.settled.notified() => {}
                    () = requests.closed() => return,
                    () = &mut late => return,
                }
            }
        }
    }

    /// Appends what upstream has said meanwhile.
    pub fn drain(&mut self, out: &mut Vec<u8>) {
        while let Ok(frame) = self.said.try_recv() {
            self.shared.waiting.fetch_sub(frame.len(), Ordering::AcqRel);
            out.extend_from_slice(&frame);
        }
    }

    /// The next thing that upstream says; `None` if it is gone.
    pub async fn next(&mut self) -> Option<Box<[u8]>> {
        let said = self.said.recv().await;
        self.shared.waiting.fetch_sub(said.as_ref().map_or(0, |said| said.len()), Ordering::AcqRel);
        said
    }
}

async fn relay(
    upstream: Arc<Upstream>,
    (resp3, db, slot): (bool, usize, Option<u16>),
    mut asked: mpsc::UnboundedReceiver<Vec<u8>>,
    say: mpsc::UnboundedSender<Box<[u8]>>,
    shared: Arc<Shared>,
    is_monitor: bool,
) {
    let taken = match upstream.pool(slot) {
        Ok(pool) => pool.take(resp3, db).await,
        Err(error) => Err(error),
    };
    let mut connection = match taken {
        Ok(dedicated) => dedicated.into_connection(),
        Err(error) => {
            let text = format!("-UPSTREAMDOWN upstream cannot be reached: {error}")
                .replace(['\r', '\n'], " ")
                + "\r\n";
            // The client may be gone already.
            drop(say.send(text.into_bytes().into()));
            return;
        }
    };
    loop {
        tokio::select! {
            request = asked.recv() => {
                let Some(mut request) = request else { return };
                encode([&b"PING"[..], SETTLED].into_iter(), &mut request);
                let sent = connection.stream.write_all(&request).await;
                if sent.is_err() || connection.stream.flush().await.is_err() {
                    return;
                }
            }
            frame = connection.read() => {
                let Ok(frame) = frame else { return };
                if is_settled(&frame) {
                    shared.owed.fetch_sub(1, Ordering::AcqRel);
                    shared.settled.notify_one();
                    continue;
                }
                if !is_monitor {
                    note(&frame, &shared);
                }
                let waiting = shared.waiting.fetch_add(frame.len(), Ordering::AcqRel);
                if waiting > MAX_WAITING || say.send(frame).is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether it is the reply to our `PING`: a bulk string, or in the mode that subscriptions put RESP2 into, an array.
fn is_settled(frame: &[u8]) -> bool {
    match frame::elements(frame) {
        Some(parts) => {
            matches!(parts[..], [kind, text] if frame::text(kind) == Some(b"pong") && frame::text(text) == Some(SETTLED))
        }
        None => frame::text(frame) == Some(SETTLED),
    }
}

/// Keeps the number of subscriptions, which confirmations carry.
fn note(frame: &[u8], shared: &Shared) {
    let Some(parts) = frame::elements(frame) else { return };
    let [kind, _, count] = parts[..] else { return };
    let (Some(kind), Some(count)) = (frame::text(kind), frame::integer(count)) else { return };
    let place = match kind {
        b"subscribe" | b"unsubscribe" | b"psubscribe" | b"punsubscribe" => 0,
        b"ssubscribe" | b"sunsubscribe" => 1,
        _ => return,
    };
    shared.subscriptions[place].store(count.max(0) as usize, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_and_our_own_pings_are_told_from_messages() {
        let shared = Shared::default();
        note(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n", &shared);
        note(b">3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n", &shared);
        note(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n9\r\n", &shared);
        assert_eq!(shared.subscriptions.each_ref().map(|count| count.load(Ordering::Relaxed)), [2, 1]);
        assert!(is_settled(b"$16\r\nanteroom:settled\r\n"));
        assert!(is_settled(b"*2\r\n$4\r\npong\r\n$16\r\nanteroom:settled\r\n"));
        assert!(!is_settled(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"));
    }
}
