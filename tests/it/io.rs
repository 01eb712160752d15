//! Both ways of reading and writing sockets serve alike: see `[server] io`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::harness::{Server, encode};

const WAYS: [&str; 2] = ["io_uring", "epoll"];

#[test]
fn info_says_which_it_is() {
    for way in WAYS {
        let server = Server::anteroom(&["--io", way]);
        let info = server.client().run("INFO server");
        assert!(info.contains(&format!("multiplexing_api:{way}\r\n")), "{info}");
    }
    let info = Server::anteroom(&[]).client().run("INFO server");
    assert!(info.contains("multiplexing_api:io_uring\r\n"), "the default where there is one: {info}");
}

#[test]
fn pipelines_of_all_sizes_are_answered_in_order() {
    for way in WAYS {
        let server = Server::anteroom(&["--io", way, "--unixsocket", "socket"]);
        std::thread::scope(|scope| {
            for seed in 0..12 {
                let server = &server;
                scope.spawn(move || {
                    if seed % 2 == 0 {
                        let stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
                        exchange(stream.try_clone().unwrap(), stream, seed);
                    } else {
                        let stream = UnixStream::connect(server.dir.join("socket")).unwrap();
                        exchange(stream.try_clone().unwrap(), stream, seed);
                    }
                });
            }
        });
    }
}

/// Sends rounds of ECHOs, each in pieces of any size, and reads all replies.
fn exchange(mut reader: impl Read + Send, mut writer: impl Write + Send, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..12 {
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        for _ in 0..random.usize(1..200) {
            let largest = 1 << random.u32(0..16);
            let len = random.usize(0..largest);
            let value: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            replies.extend(format!("${len}\r\n").bytes().chain(value.iter().copied()).chain(*b"\r\n"));
            requests.extend(encode(&[b"ECHO".to_vec(), value]));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rest = &requests[..];
                while !rest.is_empty() {
                    let largest = 1 << random.u32(1..20);
                    let piece = random.usize(1..=rest.len().min(largest));
                    writer.write_all(&rest[..piece]).unwrap();
                    rest = &rest[piece..];
                }
            });
            let mut came = vec![0; replies.len()];
            reader.read_exact(&mut came).unwrap();
            assert!(came == replies, "seed {seed}");
        });
    }
}

#[test]
fn the_last_replies_come_before_the_end() {
    for way in WAYS {
        let mut server = Server::anteroom(&["--io", way]);
        let mut client = server.client();
        let value = vec![b'x'; 3_000_000];
        client.send(&[b"SET".to_vec(), b"large".to_vec(), value.clone()]);
        assert_eq!(client.read(), b"+OK\r\n");
        // More than the sockets hold: most of it is under way when the server comes to the end.
        client.send_raw(b"GET large\r\nGET large\r\nQUIT\r\n");
        std::thread::sleep(std::time::Duration::from_millis(100));
        for _ in 0..2 {
            assert_eq!(client.read().len(), value.len() + "$3000000\r\n\r\n".len());
        }
        assert_eq!(client.read(), b"+OK\r\n");
        assert!(client.is_closed());
        let mut client = server.client();
        client.send_raw(b"GET large\r\n");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let stops = std::thread::spawn(move || server.stop(libc::SIGTERM).code());
        assert_eq!(client.read().len(), value.len() + "$3000000\r\n\r\n".len());
        assert_eq!(stops.join().unwrap(), Some(0));
    }
}

#[test]
fn who_waits_is_woken_and_may_go_away() {
    for way in WAYS {
        let server = Server::anteroom(&["--io", way]);
        let (mut waits, mut pushes) = (server.client(), server.client());
        waits.send_raw(b"BLPOP queue 0\r\n");
        while !pushes.run("INFO clients").contains("blocked_clients:1\r\n") {}
        assert_eq!(pushes.run("RPUSH queue a"), ":1\r\n");
        assert_eq!(waits.read(), b"*2\r\n$5\r\nqueue\r\n$1\r\na\r\n");
        waits.send_raw(b"BLPOP queue 0\r\n");
        while !pushes.run("INFO clients").contains("blocked_clients:1\r\n") {}
        drop(waits);
        while !pushes.run("INFO clients").contains("connected_clients:1\r\n") {}
        assert_eq!(pushes.run("RPUSH queue b"), ":1\r\n");
        assert_eq!(pushes.run("LPOP queue"), "$1\r\nb\r\n");
    }
}
