//! Worker threads: one current-thread runtime each. A connection stays on the thread it was dealt to.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;

use super::connection;
use super::ring::Ring;
use super::stream::Accepted;
use crate::clients::Client;
use crate::engine::Worker;
use crate::instance::Instance;

/// Bytes read at once; the buffer is shared by all connections of a thread.
pub const READ_BUFFER: usize = 64 * 1024;
/// An output buffer that grew beyond this is given back.
pub const KEEP_OUTPUT: usize = 1024 * 1024;

/// How long to wait for a script of another thread to end.
const UPKEEP: std::time::Duration = std::time::Duration::from_millis(20);

/// Whether the shared connections to upstream live on a worker's thread. Between several workers they would be on that of
/// one, and its connections would be slower than the others'.
pub fn hosts_links(workers: usize) -> bool {
    workers == 1
}

/// A connection on its way to its thread.
pub struct Dealt {
    /// The socket.
    pub socket: Accepted,
    /// What speaks TLS on it, if that is to be spoken.
    pub tls: Option<TlsAcceptor>,
    /// Its entry in the list of clients.
    pub client: std::sync::Arc<Client>,
}

/// What the connections of one thread share. Borrowed only between two awaits.
pub struct Bench {
    /// The engine.
    pub worker: Worker,
    /// Input as it comes from the socket.
    pub input: Box<[u8]>,
    /// Replies as they go to the socket.
    pub output: Vec<u8>,
    /// What its sockets are in, if the runtime does not watch them.
    pub ring: Option<Rc<Ring>>,
}

/// The worker threads.
pub struct Workers {
    queues: Vec<UnboundedSender<Dealt>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    next: usize,
}

impl Workers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// If a thread or its runtime cannot be started.
    pub fn start(instance: &'static Instance, count: usize) -> io::Result<Self> {
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (queue, dealt) = unbounded_channel();
            let (started, failed) = std::sync::mpsc::channel();
            let run = move || {
                // A local runtime: tasks need not be `Send`, and waking one is a push to a queue.
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => {
                        runtime.block_on(async {
                            let ring = match instance.uses_io_uring().then(Ring::new).transpose() {
                                Ok(ring) => ring,
                                Err(error) => return drop(started.send(error)),
                            };
                            drop(started);
                            let links = instance.upstream.clone().filter(|_| hosts_links(count));
                            let hosts = links.map(|upstream| tokio::spawn(upstream.run())).is_some();
                            serve(instance, ring, dealt).await;
                            if hosts {
                                // By the connections that end with this thread.
                                crate::engine::give_leases_back(instance, true).await;
                            }
                        });
                    }
                    Err(error) => drop(started.send(error)),
                }
            };
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
            if let Ok(error) = failed.recv() {
                return Err(error);
            }
            queues.push(queue);
        }
        Ok(Self { queues, threads, next: 0 })
    }

    /// Gives a connection to the next thread.
    pub fn deal(&mut self, dealt: Dealt) {
        let index = self.next % self.queues.len();
        self.next += 1;
        // A thread ends only after this queue is closed.
        drop(self.queues[index].send(dealt));
    }

    /// Deals out no more, and waits for the threads to end with their connections.
    pub fn finish(self) {
        drop(self.queues);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

async fn serve(instance: &'static Instance, ring: Option<Rc<Ring>>, mut dealt: UnboundedReceiver<Dealt>) {
    if let Some(ring) = &ring {
        tokio::task::spawn_local(ring.clone().drive());
    }
    let bench = Rc::new(RefCell::new(Bench {
        worker: Worker::new(instance),
        input: vec![0; READ_BUFFER].into_boxed_slice(),
        output: Vec::with_capacity(READ_BUFFER),
        ring,
    }));
    instance.scripts.watch(bench.borrow().worker.upkeep.clone());
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            next = dealt.recv() => match next {
                Some(next) => {
                    bench.borrow().worker.counters.connections.add(1);
                    connections.spawn_local(connection::serve(bench.clone(), next));
                }
                None => break,
            },
            Some(ended) = connections.join_next() => log_panic(ended),
            () = keep_up(&bench) => {}
        }
    }
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(ended) => log_panic(ended),
                None => break,
            },
            () = keep_up(&bench) => {}
        }
    }
}

/// Goes on with a script that has had its time, in turn with the connections, and does what else no request causes. May
/// be dropped and called again at any time.
async fn keep_up(bench: &Rc<RefCell<Bench>>) {
    let wanted = bench.borrow().worker.upkeep.clone();
    loop {
        if bench.borrow().worker.has_script() {
            bench.borrow_mut().worker.continue_script();
            tokio::task::yield_now().await;
        } else if bench.borrow_mut().worker.tend() {
            tokio::time::sleep(UPKEEP).await;
        } else {
            wanted.notified().await;
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
