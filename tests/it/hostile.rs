//! Bytes that no client would send, over the wire: Redis's answer, then the end of the connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use fastrand::Rng;

use crate::fuzz;
use crate::harness::{Client, PATIENCE, Server};

/// Sends a stream; everything that the server says until it closes.
fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    reply
}

#[test]
fn garbage_is_answered_as_redis_answers_it() {
    // Redis takes a zero byte for the end of what it has read, and waits for the line's end behind it for ever.
    let noise: Vec<u8> = (1..=255).collect();
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let mut rng = Rng::with_seed(7);
    for _ in 0..3000 {
        let input = fuzz::stream(&mut rng, &noise);
        let (our_answer, their_answer) = (answer(&ours, &input), answer(&theirs, &input));
        assert!(
            our_answer == their_answer,
            "{:?}\nours   {:?}\ntheirs {:?}",
            String::from_utf8_lossy(&input),
            String::from_utf8_lossy(&our_answer),
            String::from_utf8_lossy(&their_answer),
        );
    }
    assert_eq!(ours.client().run("PING"), "+PONG\r\n");
}

/// What is in `INFO` behind this name.
fn info(client: &mut Client, name: &str) -> i64 {
    let text = client.run("INFO everything");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in INFO")).trim().parse().unwrap()
}

#[test]
fn claims_before_authentication_are_refused_in_redis_words_and_cost_nothing() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let mut watcher = ours.client();
    watcher.run("CONFIG SET requirepass secret");
    theirs.client().run("CONFIG SET requirepass secret");
    let before = info(&mut watcher, "used_memory");
    let mut held = Vec::new();
    for claim in [
        "*1000000000\r\n",
        "*2147483647\r\n",
        "*2147483648\r\n",
        "*9223372036854775808\r\n",
        "*11\r\n",
        "*-5\r\n",
        "*-9223372036854775808\r\n",
        "*-9223372036854775809\r\n",
        "*\r\n",
        "*1\r\n$16385\r\n",
        "*1\r\n$536870912\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$\r\n",
        "*1\r\n*1\r\n",
        "*1\r\n\r\n",
        "*2\r\n$4\r\nAUTH\r\n$9223372036854775807\r\n",
        "*10\r\n$16384\r\n",
        "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        "AUTH\r\nAUTH a b c\r\nAUTH wrong\r\nAUTH default wrong\r\nQUIT\r\n",
        "MULTI\r\nEXEC\r\nEXEC more\r\nDISCARD\r\nCOMMAND\r\nNOTHING\r\nRESET\r\n",
        &"*1\r\n".repeat(4000),
        &"(".repeat(16_000),
    ] {
        let (our_answer, their_answer) = (answer(&ours, claim.as_bytes()), answer(&theirs, claim.as_bytes()));
        let text = |answer: &[u8]| String::from_utf8_lossy(answer).into_owned();
        assert_eq!(text(&our_answer), text(&their_answer), "{:?}", &claim[..claim.len().min(100)]);
        // The same again from clients that stay.
        for _ in 0..10 {
            let mut client = ours.client();
            client.send_raw(claim.as_bytes());
            held.push(client);
        }
    }
    let each = (info(&mut watcher, "used_memory") - before) / held.len() as i64;
    assert!(each < 64 << 10, "{each} bytes a connection");
    assert_eq!(info(&mut watcher, "command_panics"), 0);
}

#[test]
fn lines_that_never_end_are_refused_in_redis_words() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    for start in ["x", "*", "*1\r\n$", "*2\r\n$4\r\nPING\r\n:"] {
        let ask = |server: &Server| {
            let mut client = server.client();
            client.send_raw(start.as_bytes());
            // So much that it must be refused, and no more than is surely read before that.
            client.send_raw(&vec![b'1'; 65_536 + 64]);
            let reply = String::from_utf8_lossy(&client.read()).into_owned();
            assert!(client.is_closed());
            reply
        };
        assert_eq!(ask(&ours), ask(&theirs), "{start:?}");
    }
}
