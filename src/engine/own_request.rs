//! Requests that the server makes of itself, as at its start.

use std::sync::Arc;

use super::pipeline::Step;
use super::worker::Worker;
use crate::clients::{Client, Origin, Session};
use crate::clock;
use crate::instance::Instance;
use crate::protocol::RequestParser;

/// Runs a command that waits for nothing; the bytes of its reply, or none if it does wait.
pub fn run_own(instance: &'static Instance, arguments: &[&[u8]]) -> Vec<u8> {
    let (address, local_address) = ("server:0".to_owned(), "server:0".to_owned());
    let origin = Origin { address, local_address, fd: -1, is_unix: false };
    let mut session = Session::new(Arc::new(Client::new(0, origin, clock::wall_ms())), true);
    session.select(instance.first_db());
    let mut input = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        input.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        input.extend_from_slice(argument);
        input.extend_from_slice(b"\r\n");
    }
    let mut output = Vec::new();
    let mut worker = Worker::new(instance);
    let progress = worker.run(&mut session, &mut RequestParser::default(), &mut input, &mut output);
    worker.end_session(&mut session);
    if matches!(progress.step, Step::Continue | Step::Flush) { output } else { Vec::new() }
}
