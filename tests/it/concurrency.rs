//! Many clients at once: nothing is lost, nothing is torn.

use crate::harness::Server;

#[test]
fn increments_from_many_clients_all_count() {
    let server = Server::anteroom(&["--threads", "4"]);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = server.client();
                client.send_raw(&b"INCR n\r\nHINCRBY h f 1\r\nLPUSH l x\r\n".repeat(500));
                (0..1500).for_each(|_| drop(client.read()));
            });
        }
    });
    let mut client = server.client();
    assert_eq!(client.run("GET n"), "$4\r\n8000\r\n");
    assert_eq!(client.run("HGET h f"), "$4\r\n8000\r\n");
    assert_eq!(client.run("LLEN l"), ":8000\r\n");
}

#[test]
fn several_keys_are_never_seen_half_written() {
    let server = Server::anteroom(&["--threads", "4"]);
    server.client().run("MSET a 0 b 0 c 0 d 0");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..1500 {
                    let v = writer * 10_000 + number;
                    client.run(&format!("MSET a {v} b {v} c {v} d {v}"));
                }
            });
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..1500 {
                    let reply = client.run("MGET d a c b");
                    let values: Vec<&str> = reply.split("\r\n").skip(2).step_by(2).collect();
                    assert!(values[..4].iter().all(|value| *value == values[0]), "{reply:?}");
                }
            });
        }
    });
}

#[test]
fn transfers_in_transactions_keep_the_sum() {
    let server = Server::anteroom(&["--threads", "4"]);
    server.client().run("MSET x 1000 y 1000 z 1000");
    std::thread::scope(|scope| {
        for (from, to) in [("x", "y"), ("y", "z"), ("z", "x"), ("y", "x")] {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for _ in 0..1000 {
                    client.send_raw(format!("MULTI\r\nDECR {from}\r\nINCR {to}\r\nEXEC\r\n").as_bytes());
                    (0..4).for_each(|_| drop(client.read()));
                }
            });
        }
        scope.spawn(|| {
            let mut client = server.client();
            for _ in 0..1000 {
                let reply = client.run("MGET x y z");
                let values: Vec<i64> =
                    reply.split("\r\n").skip(2).step_by(2).take(3).map(|v| v.parse().unwrap()).collect();
                assert_eq!(values.iter().sum::<i64>(), 3000, "{reply:?}");
            }
        });
    });
}

#[test]
fn watched_counters_count_exactly() {
    let server = Server::anteroom(&["--threads", "4"]);
    server.client().run("SET n 0");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = server.client();
                let mut done = 0;
                while done < 200 {
                    client.run("WATCH n");
                    let value = client.run("GET n");
                    let value: i64 = value.split("\r\n").nth(1).unwrap().parse().unwrap();
                    client.send_raw(format!("MULTI\r\nSET n {}\r\nEXEC\r\n", value + 1).as_bytes());
                    client.read();
                    client.read();
                    done += usize::from(client.read() != b"*-1\r\n");
                }
            });
        }
    });
    assert_eq!(server.client().run("GET n"), "$4\r\n1200\r\n");
}
