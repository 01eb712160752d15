//! Floods: many clients, clients that do not read, much input, much data. Memory and descriptors stay bounded and come
//! back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use fastrand::Rng;

use crate::harness::{Client, PATIENCE, Server, encode};

const KB: i64 = 1 << 10;
pub const MB: i64 = 1 << 20;

/// What is in `INFO` behind this name.
pub fn info(client: &mut Client, name: &str) -> i64 {
    let text = client.run("INFO everything");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in INFO")).trim().parse().unwrap()
}

/// A line of the process's status, in bytes.
pub fn status(server: &Server, name: &str) -> i64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * KB
}

fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// Waits until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if is_so() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("never: {what}");
}

fn set(key: &str, value: Vec<u8>) -> Vec<u8> {
    encode(&[b"SET".to_vec(), key.as_bytes().to_vec(), value])
}

#[test]
fn clients_that_do_not_read_are_not_read_either() {
    const CLIENTS: i64 = 100;
    let server = Server::anteroom(&[]);
    let mut watcher = server.client();
    watcher.send_raw(&set("big", vec![b'x'; MB as usize]));
    watcher.read();
    let before = info(&mut watcher, "used_memory");
    // Each asks for 60 MB, and goes on sending for as long as the server takes anything.
    let mut readers: Vec<TcpStream> =
        (0..CLIENTS).map(|_| TcpStream::connect(("127.0.0.1", server.port)).unwrap()).collect();
    let requests = b"GET big\r\n".repeat(60);
    readers.iter_mut().for_each(|reader| reader.write_all(&requests).unwrap());
    eventually("all replies wait", || {
        watcher.run("CLIENT LIST").matches(" cmd=get ").count() as i64 == CLIENTS
            && watcher.run("CLIENT LIST").matches(" omem=0 ").count() == 1
    });
    let each = (info(&mut watcher, "used_memory") - before) / CLIENTS;
    assert!(each < 5 * MB / 2, "{each} bytes a slow reader");
    assert_eq!(watcher.run("PING"), "+PONG\r\n");
    // What was held back is all there.
    let mut reply = vec![0; 60 * (MB as usize + 12)];
    readers[0].set_read_timeout(Some(PATIENCE)).unwrap();
    readers[0].read_exact(&mut reply).unwrap();
    assert!(
        reply
            .chunks(MB as usize + 12)
            .all(|reply| reply.starts_with(b"$1048576\r\nx") && reply.ends_with(b"x\r\n"))
    );
    drop(readers);
    eventually("their memory comes back", || info(&mut watcher, "used_memory") < before + 2 * MB);
    eventually("they are gone", || info(&mut watcher, "connected_clients") == 1);
}

#[test]
fn idle_clients_cost_little() {
    const CLIENTS: i64 = 2000;
    let server = Server::anteroom(&[]);
    let mut watcher = server.client();
    let (used, resident) = (info(&mut watcher, "used_memory"), status(&server, "VmRSS"));
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.client();
            assert_eq!(client.run("PING"), "+PONG\r\n");
            // A request that has only begun.
            client.send_raw(b"*2\r\n$3\r\nGE");
            client
        })
        .collect();
    let used = (info(&mut watcher, "used_memory") - used) / CLIENTS;
    let resident = (status(&server, "VmRSS") - resident) / CLIENTS;
    assert!(used < 20 * KB && resident < 20 * KB, "{used} bytes used and {resident} resident a client");
    drop(clients);
    eventually("they are gone", || info(&mut watcher, "connected_clients") == 1);
}

#[test]
fn connections_come_and_go_without_a_trace() {
    const CONNECTS: usize = 20_000;
    let server = Server::anteroom(&[]);
    let mut watcher = server.client();
    watcher.run("PING");
    let before = descriptors(&server);
    let used = info(&mut watcher, "used_memory");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let port = server.port;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(thread);
                for _ in 0..CONNECTS / 4 {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    // Closed without a word, in the middle of one, with replies not read, or in good order. A server
                    // that has closed already is none of this test's business.
                    match rng.u8(..5) {
                        0 => {}
                        1 => drop(stream.write_all(b"*2\r\n$3\r\nGET\r\n$100\r\nab")),
                        2 => drop(stream.write_all(b"PING\r\nBLPOP nothing 0\r\n")),
                        3 => drop(stream.write_all(b"MULTI\r\nWATCH k\r\nGET k\r\n*1\r\n$-7\r\n")),
                        _ => {
                            stream.write_all(b"PING\r\n").unwrap();
                            stream.read_exact(&mut [0; 7]).unwrap();
                        }
                    }
                    // With a reset, so that no port lingers.
                    socket_reset(&stream);
                }
            });
        }
    });
    let all_gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("all are gone", || info(&mut watcher, "connected_clients") == 1);
    }));
    assert!(all_gone.is_ok(), "{}", watcher.run("CLIENT LIST"));
    eventually("all descriptors are closed", || descriptors(&server) <= before);
    assert_eq!(info(&mut watcher, "blocked_clients"), 0);
    assert_eq!(info(&mut watcher, "command_panics"), 0);
    eventually("the memory is back", || info(&mut watcher, "used_memory") < used + MB / 4);
}

fn socket_reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let server = Server::anteroom(&[]);
    let mut watcher = server.client();
    watcher.run("CONFIG SET maxclients 50");
    let kept: Vec<Client> = (0..49).map(|_| server.client()).collect();
    eventually("the places are taken", || info(&mut watcher, "connected_clients") == 50);
    let before = descriptors(&server);
    for _ in 0..500 {
        let mut refused = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        let mut reply = Vec::new();
        refused.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, b"-ERR max number of clients reached\r\n");
    }
    assert_eq!(info(&mut watcher, "rejected_connections"), 500);
    assert_eq!(descriptors(&server), before);
    drop(kept);
    eventually("the places are free", || info(&mut watcher, "connected_clients") == 1);
}

#[test]
fn a_million_requests_at_once_take_no_memory() {
    const REQUESTS: usize = 1_000_000;
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("PING");
    let before = status(&server, "VmRSS");
    let mut writer = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut reader = writer.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(&b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(REQUESTS)).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut replies = Vec::new();
    reader.read_to_end(&mut replies).unwrap();
    sender.join().unwrap();
    assert_eq!(replies.iter().filter(|byte| **byte == b':').count(), REQUESTS);
    assert!(replies.ends_with(b"\r\n:1000000\r\n"));
    let cost = status(&server, "VmHWM") - before;
    assert!(cost < 16 * MB, "{cost} bytes");
}

#[test]
fn a_request_of_a_million_arguments_leaves_nothing_behind() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let before = info(&mut client, "used_memory");
    let mut request = b"*1000001\r\n$3\r\nDEL\r\n".to_vec();
    request.extend(b"$1\r\nk\r\n".repeat(1_000_000));
    client.send_raw(&request);
    assert_eq!(client.read(), b":0\r\n");
    eventually("the memory is back", || info(&mut client, "used_memory") < before + MB);
}

#[test]
fn a_large_value_is_held_no_more_often_than_it_must() {
    const SIZE: i64 = 64 * MB;
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("PING");
    let (before, empty) = (status(&server, "VmRSS"), info(&mut client, "used_memory"));
    client.send_raw(&set("big", vec![b'x'; SIZE as usize]));
    assert_eq!(client.read(), b"+OK\r\n");
    let peak = status(&server, "VmHWM") - before;
    // Once as it came, once as it is kept.
    assert!(peak < SIZE * 23 / 10, "{peak} bytes at the most for a value of {SIZE}");
    let used = info(&mut client, "used_memory") - empty;
    assert!(used < SIZE + MB, "{used} bytes used");
    client.send_raw(b"GET big\r\n");
    assert_eq!(client.read().len() as i64, SIZE + "$67108864\r\n\r\n".len() as i64);
    client.run("DEL big");
    eventually("the memory is back", || info(&mut client, "used_memory") < empty + 2 * MB);
}

#[test]
fn who_leaves_too_much_unread_is_closed() {
    let server = Server::anteroom(&[]);
    let mut watcher = server.client();
    watcher.send_raw(&set("big", vec![b'x'; MB as usize]));
    watcher.read();
    // At once, and after a while; what is read in time is no matter.
    for limits in ["normal 2mb 0 0", "normal 0 2mb 1"] {
        let class: Vec<Vec<u8>> = ["CONFIG", "SET", "client-output-buffer-limit", limits]
            .iter()
            .map(|word| word.as_bytes().to_vec())
            .collect();
        watcher.send(&class);
        assert_eq!(watcher.read(), b"+OK\r\n");
        let mut sleeper = server.client();
        sleeper.send_raw(&b"GET big\r\n".repeat(3));
        (0..3).for_each(|_| assert_eq!(sleeper.read().len(), MB as usize + "$1048576\r\n\r\n".len()));
        // Behind what the system's own buffers take. Replies come by the quarter of a megabyte, but this one is whole.
        watcher.send_raw(&set("huge", vec![b'x'; 32 * MB as usize]));
        watcher.read();
        sleeper.send_raw(b"GET huge\r\n");
        eventually("it is gone", || info(&mut watcher, "connected_clients") == 1);
    }
    let shown = watcher.run("CONFIG GET client-output-buffer-limit");
    assert!(shown.contains("normal 0 2097152 1 slave 268435456 67108864 60 pubsub 33554432"), "{shown}");
}

#[test]
fn what_is_sent_but_not_run_is_bounded() {
    let server = Server::anteroom(&[]);
    let mut watcher = server.client();
    watcher.run("CONFIG SET client-query-buffer-limit 1mb");
    // A request that is never complete.
    let mut client = server.client();
    client.send_raw(b"*1000000\r\n");
    let argument = [b"$65536\r\n", &vec![b'x'; 65_536][..], b"\r\n"].concat();
    // The end may come while this is being sent.
    let sent = (0..1000).take_while(|_| client.try_send(&argument)).count();
    assert!(sent < 1000 && client.is_closed());
    // A transaction that is never run, sent politely.
    let mut client = server.client();
    client.run("MULTI");
    let mut queued = 0;
    loop {
        client.send_raw(&set("k", vec![b'x'; 100_000]));
        match client.try_read() {
            Some(reply) => assert_eq!(reply, b"+QUEUED\r\n"),
            None => break,
        }
        queued += 1;
        assert!(queued < 20, "two megabytes are queued");
    }
    assert!(queued > 5);
    eventually("it is gone", || info(&mut watcher, "connected_clients") == 1);
}
