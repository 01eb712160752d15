//! End-to-end tests: the real binary, beside the real `redis-server`, over real sockets.

mod admin;
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
mod http;
mod integers;
mod latency;
mod layers;
mod limits;
mod memory;
mod nginx;
mod pause;
mod pressure;
mod protocol;
mod ratelimit;
mod shutdown;
mod table;
