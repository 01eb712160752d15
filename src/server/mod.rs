//! The server: listeners, worker threads and connections. The only layer that knows sockets.

mod connection;
mod cron;
mod defrag;
mod descriptors;
mod inherited;
mod listener;
mod notify;
mod ring;
mod run;
mod stream;
mod tls;
mod waiting;
mod workers;

pub use run::run;
