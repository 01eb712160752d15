//! Requests of every kind, good and bad.

use std::io::Write;
use std::net::TcpStream;

use crate::harness::{Client, Server, encode};

#[test]
fn protocol_errors_are_said_in_redis_words_and_close() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    for bytes in [
        &b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfoo\r\n"[..],
        b"*-10\r\nPING\r\n",
        b"*2147483648\r\n",
        b"*a\r\n",
        b"*1\r\n$-5\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n:5\r\n",
        b"SET \"a b\r\n",
        b"SET 'a'b c\r\n",
        b"\r\n\r\nPING\r\n",
        b"*0\r\nPING\r\n",
        b"set  inline\t'a b' \r\nget inline\n",
        b"echo \"\\x41\\n\\\"\"\r\n",
    ] {
        let answer = |server: &Server| {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            stream.write_all(bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut reply = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut reply).unwrap();
            String::from_utf8_lossy(&reply).into_owned()
        };
        assert_eq!(answer(&ours), answer(&theirs), "{:?}", String::from_utf8_lossy(bytes));
    }
}

/// Requests that repeat the one before them, nearly repeat it, or have something else between.
#[test]
fn pipelines_that_repeat_themselves_are_read_as_redis_reads_them() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let mut clients = [ours.client(), theirs.client()];
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..400 {
        let (mut pipeline, mut count) = (Vec::new(), 0);
        let mut name = "INCR";
        for _ in 0..random.usize(1..80) {
            if random.u8(..6) == 0 {
                name = ["INCR", "incr", "GET", "APPEND", "LPUSH", "SETRANGE", "ECHO", "NOSUCH", "OBJECT"]
                    [random.usize(..9)];
            }
            let key =
                format!("{}{}", random.u8(..3), "k".repeat([0, 1, 8, 9, 98, 99, 300][random.usize(..7)]));
            let value = ["v", "w", "longer\r\n$1"][random.usize(..8).min(2)];
            match random.u8(..20) {
                0 => pipeline.extend_from_slice(b"*0\r\n"),
                1 => pipeline.extend_from_slice(b"\r\n"),
                2 => {
                    pipeline.extend_from_slice(format!("get {key}\r\n").as_bytes());
                    count += 1;
                }
                _ => {
                    let words = match name {
                        "INCR" | "incr" | "GET" | "ECHO" | "NOSUCH" => vec![name, &key],
                        "SETRANGE" => vec![name, &key, "0", value],
                        "OBJECT" => vec![name, "ENCODING", &key],
                        _ => vec![name, &key, value],
                    };
                    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
                    pipeline.extend_from_slice(&encode(&words));
                    count += 1;
                }
            }
        }
        let cut = random.usize(..=pipeline.len());
        let [ours, theirs] = clients.each_mut().map(|client| {
            client.send_raw(&pipeline[..cut]);
            client.send_raw(&pipeline[cut..]);
            (0..count).map(|_| String::from_utf8_lossy(&client.read()).into_owned()).collect::<Vec<_>>()
        });
        assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&pipeline));
    }
}

#[test]
fn lines_without_end_are_refused() {
    let server = Server::anteroom(&[]);
    for (start, error) in [
        ("x", "-ERR Protocol error: too big inline request\r\n"),
        ("*", "-ERR Protocol error: too big mbulk count string\r\n"),
        ("*1\r\n$", "-ERR Protocol error: too big bulk count string\r\n"),
    ] {
        let mut client = server.client();
        client.send_raw(start.as_bytes());
        client.send_raw(&vec![b'1'; 70_000]);
        assert_eq!(String::from_utf8_lossy(&client.read()), error);
        assert!(client.is_closed());
    }
}

#[test]
fn before_authentication_requests_are_small() {
    let server = Server::anteroom(&["--requirepass", "secret"]);
    for (request, error) in [
        ("*11\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"),
        ("*1\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"),
    ] {
        let mut client = server.client();
        client.send_raw(request.as_bytes());
        assert_eq!(String::from_utf8_lossy(&client.read()), error);
        assert!(client.is_closed());
    }
    let mut client = server.client();
    assert_eq!(client.run("GET k"), "-NOAUTH Authentication required.\r\n");
    assert!(client.run("AUTH wrong").starts_with("-WRONGPASS"));
    assert_eq!(client.run("AUTH secret"), "+OK\r\n");
    assert_eq!(client.run("GET k"), "$-1\r\n");
}

#[test]
fn a_pipeline_of_a_hundred_thousand_is_answered_in_order() {
    let server = Server::anteroom(&[]);
    let client = server.client();
    let mut writer = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut reader = Client::new(writer.try_clone().unwrap());
    drop(client);
    let sender = std::thread::spawn(move || {
        let request = encode(&[b"INCR".to_vec(), b"n".to_vec()]);
        writer.write_all(&request.repeat(100_000)).unwrap();
    });
    for number in 1..=100_000 {
        assert_eq!(reader.read(), format!(":{number}\r\n").into_bytes());
    }
    sender.join().unwrap();
}

#[test]
fn chunks_change_nothing() {
    let server = Server::anteroom(&[]);
    let mut requests = encode(&[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 300]]);
    requests.extend(b"GET k\r\n");
    requests.extend(encode(&[b"APPEND".to_vec(), b"k".to_vec(), b"\r\n$5".to_vec()]));
    let mut expected = None;
    for cut in 1..requests.len() {
        let mut client = server.client();
        client.run("DEL k");
        client.send_raw(&requests[..cut]);
        std::thread::sleep(std::time::Duration::from_micros(300));
        client.send_raw(&requests[cut..]);
        let replies: Vec<Vec<u8>> = (0..3).map(|_| client.read()).collect();
        assert_eq!(*expected.get_or_insert(replies.clone()), replies, "cut at {cut}");
    }
}

#[test]
fn a_promise_of_half_a_gigabyte_costs_nothing() {
    let server = Server::anteroom(&[]);
    let used = |client: &mut Client| -> i64 {
        let info = client.run("INFO memory");
        let line = info.lines().find(|line| line.starts_with("used_memory:")).unwrap();
        line.split(':').nth(1).unwrap().trim().parse().unwrap()
    };
    let mut client = server.client();
    let before = used(&mut client);
    let promises: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = server.client();
            client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc");
            client
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let cost = used(&mut client) - before;
    assert!(cost < 4 << 20, "{cost} bytes for {} promises", promises.len());
}

#[test]
fn a_value_of_many_megabytes_arrives() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let value: Vec<u8> = (0..40_000_000u32).map(|number| (number % 251) as u8).collect();
    client.send(&[b"SET".to_vec(), b"big".to_vec(), value.clone()]);
    assert_eq!(client.read(), b"+OK\r\n");
    client.send(&[b"GET".to_vec(), b"big".to_vec()]);
    let reply = client.read();
    assert_eq!(&reply[reply.len() - value.len() - 2..reply.len() - 2], &value[..]);
}
