//! The replies of one client's requests that are under way, brought back in the order of the requests.

use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use smallvec::SmallVec;

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The request was not sent.
    Unavailable,
    /// It was sent, and what became of it is not known.
    Lost,
    /// The same, because it took too long.
    TimedOut,
    /// The key is not there, and may be a row that is to be loaded.
    Absent,
}

/// A reply, or why there is none.
pub type Outcome = Result<Box<[u8]>, Failure>;

/// Places for replies.
#[derive(Debug, Default)]
pub struct Gather {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    places: SmallVec<[Option<Outcome>; 1]>,
    missing: usize,
    waker: Option<Waker>,
}

/// Where one reply goes.
#[derive(Debug, Clone)]
pub struct Ticket {
    gather: Arc<Gather>,
    place: usize,
}

impl Gather {
    /// A place for one more reply, and its number.
    pub fn ticket(self: &Arc<Self>) -> (Ticket, usize) {
        let mut inner = self.inner.lock();
        inner.places.push(None);
        inner.missing += 1;
        let place = inner.places.len() - 1;
        (Ticket { gather: self.clone(), place }, place)
    }

    /// Resolves when every reply is there; may be dropped and called again.
    pub async fn complete(&self) {
        std::future::poll_fn(|context| {
            let mut inner = self.inner.lock();
            if inner.missing == 0 {
                return Poll::Ready(());
            }
            inner.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Takes all outcomes; what is not there yet has taken too long.
    pub fn take(&self) -> SmallVec<[Outcome; 1]> {
        let places = std::mem::take(&mut self.inner.lock().places);
        places.into_iter().map(|place| place.unwrap_or(Err(Failure::TimedOut))).collect()
    }
}

impl Ticket {
    /// Puts the reply into its place, if anybody still waits for it.
    pub fn fulfil(self, outcome: Outcome) {
        let mut inner = self.gather.inner.lock();
        let Some(place) = inner.places.get_mut(self.place) else { return };
        if place.replace(outcome).is_none() {
            inner.missing -= 1;
        }
        if inner.missing == 0 {
            let waker = inner.waker.take();
            drop(inner);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_back_in_the_order_of_the_requests() {
        let gather = Arc::new(Gather::default());
        let tickets: Vec<Ticket> = (0..3).map(|_| gather.ticket().0).collect();
        let bytes = |text: &str| text.as_bytes().into();
        tickets[2].clone().fulfil(Ok(bytes("c")));
        tickets[0].clone().fulfil(Ok(bytes("a")));
        let late = tickets[1].clone();
        assert_eq!(gather.take().to_vec(), [Ok(bytes("a")), Err(Failure::TimedOut), Ok(bytes("c"))]);
        // Nobody waits any more.
        late.fulfil(Ok(bytes("b")));
    }
}
