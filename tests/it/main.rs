//! End-to-end tests: the real binary, beside the real `redis-server`, over real sockets.

mod blocking;
mod concurrency;
mod configuration;
mod connection;
mod differential;
mod dump;
mod expiry;
mod fuzz;
mod generator;
mod harness;
mod hazards;
mod hostile;
mod integers;
mod latency;
mod layers;
mod limits;
mod memory;
mod pause;
mod postgres;
mod pressure;
mod protocol;
mod shutdown;
mod store;
mod table;
