//! Requests that the server makes of itself, as at its start.

use std::sync::Arc;

use super::pipeline::Step;
use super::worker::Worker;
use crate::clients::{Client, Origin, Session};
use crate::clock;
use crate::instance::Instance;
use crate::protocol::RequestParser;
use crate::tiers::upstream::encode;

/// Runs a command that waits for nothing; the bytes of its reply, or none if it does wait.
pub fn run_own(instance: &'static Instance, arguments: &[&[u8]]) -> Vec<u8> {
    let (address, local_address) = ("server:0".to_owned(), "server:0".to_owned());
    let origin = Origin { address, local_address, fd: -1, is_unix: false };
    let mut session = Session::own(Arc::new(Client::new(0, origin, clock::wall_ms())));
    session.select(instance.first_db());
    let (mut input, mut output) = (Vec::new(), Vec::new());
    encode(arguments.iter().copied(), &mut input);
    let mut worker = Worker::new(instance);
    let progress = worker.run(&mut session, &mut RequestParser::default(), &mut input, &mut output);
    worker.end_session(&mut session);
    if matches!(progress.step, Step::Continue | Step::Flush) { output } else { Vec::new() }
}
