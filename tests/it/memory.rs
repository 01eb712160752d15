//! `MEMORY`: figures, the allocator's report, and keys that only grow in number.

use crate::harness::{Client, Server};
use crate::limits::{eventually, info, status};

fn fill(client: &mut Client, prefix: &str, numbers: std::ops::Range<u32>, tail: &str) {
    let commands: Vec<u8> =
        numbers.clone().flat_map(|n| format!("SET {prefix}{n} v{tail}\r\n").into_bytes()).collect();
    client.send_raw(&commands);
    numbers.for_each(|_| assert_eq!(client.read(), b"+OK\r\n"));
}

#[test]
fn the_doctor_names_keys_that_only_grow() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    assert!(client.run("MEMORY DOCTOR").contains("too little in memory"));
    for round in 0..3 {
        fill(&mut client, "leak:", round * 500..round * 500 + 500, "");
        fill(&mut client, "session:", round * 500..round * 500 + 500, " EX 100");
        fill(&mut client, "user:", 0..500, "");
        let report = client.run("MEMORY DOCTOR");
        assert!(report.contains("Keys 'leak:*' only grow"), "{report}");
        assert!(!report.contains("session:"), "{report}");
        // Filled once is not a leak.
        assert!(round == 0 || !report.contains("user:"), "{report}");
    }
    assert!(client.run("MEMORY DOCTOR").contains("about 1500 now"));
}

#[test]
fn figures_add_up() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("HELLO 3");
    fill(&mut client, "key:", 0..1000, "");
    let stats = client.run("MEMORY STATS");
    for name in ["startup.allocated", "db.0", "overhead.total", "dataset.percentage", "allocator-rss.ratio"] {
        assert!(stats.contains(&format!("\r\n{name}\r\n")), "{name}: {stats}");
    }
    assert!(stats.contains("\r\nkeys.count\r\n:1000\r\n"), "{stats}");
    assert!(client.run("MEMORY MALLOC-STATS").contains("Begin jemalloc statistics"));
    assert_eq!(client.run("MEMORY PURGE"), "+OK\r\n");
}

#[test]
fn every_container_has_help() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for container in ["OBJECT", "MEMORY", "CONFIG", "CLIENT", "COMMAND", "LATENCY", "SLOWLOG"] {
        let help = client.run(&format!("{container} HELP"));
        let first = format!("\r\n+{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n");
        assert!(help.contains(&first), "{help}");
        assert!(help.ends_with("+HELP\r\n+    Print this help.\r\n"), "{help}");
        for command in anteroom::commands::table::COMMANDS.iter() {
            if let Some(name) = command.name.strip_prefix(&format!("{}|", container.to_lowercase())) {
                assert!(help.contains(&format!("\r\n+{}", name.to_uppercase())), "{container} {name}");
            }
        }
    }
}

#[test]
fn what_is_freed_on_the_thread_for_that_is_counted() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for index in 0..30 {
        client.run(&format!("HSET h{index} a 1"));
    }
    let freed = |client: &mut Client, count: u64| {
        let wanted = format!("lazyfree_pending_objects:0\r\nlazyfreed_objects:{count}\r\n");
        (0..500).any(|_| {
            let is_so = client.run("INFO memory").contains(&wanted);
            if !is_so {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            is_so
        })
    };
    assert_eq!(client.run("UNLINK h0 h1 nothing"), ":2\r\n");
    assert!(freed(&mut client, 2));
    assert_eq!(client.run("FLUSHALL ASYNC"), "+OK\r\n");
    assert!(freed(&mut client, 30));
    client.run("CONFIG RESETSTAT");
    assert!(freed(&mut client, 0));
}

/// What is left of many small values lies in all of their pages, until it is moved together.
#[test]
fn pages_that_are_mostly_free_are_given_back() {
    const KEYS: usize = 200_000;
    const KEPT: usize = 10;
    let server = Server::anteroom(&["--threads", "2"]);
    let mut client = server.client();
    client.run("CONFIG SET activedefrag no active-defrag-ignore-bytes 1mb");
    let send = |client: &mut Client, command: &dyn Fn(usize) -> Option<String>| {
        let numbers: Vec<usize> = (0..KEYS).collect();
        for some in numbers.chunks(5000) {
            let commands: Vec<String> = some.iter().filter_map(|number| command(*number)).collect();
            client.send_raw(commands.concat().as_bytes());
            commands.iter().for_each(|_| drop(client.read()));
        }
    };
    let value = |number: usize| format!("{number}{}", "v".repeat(100));
    send(&mut client, &|number| {
        let value = value(number);
        Some(match number % 2 {
            0 => format!("SET key:{number} {value}\r\n"),
            _ => format!("HSET key:{number} a {value} b 2\r\n"),
        })
    });
    let is_kept = |number: usize| (number.wrapping_mul(2_654_435_761) % 1009).is_multiple_of(KEPT);
    send(&mut client, &|number| (!is_kept(number)).then(|| format!("DEL key:{number}\r\n")));
    // Bytes of pages that hold something, and that nothing is in.
    let free = |client: &mut Client| {
        let stats = client.run("MEMORY STATS");
        let figure = |name: &str| {
            let behind = stats.split_once(&format!("{name}\r\n:")).unwrap().1;
            behind.lines().next().unwrap().parse::<i64>().unwrap()
        };
        figure("allocator.active") - figure("allocator.allocated")
    };
    let (before, resident) = (free(&mut client), status(&server, "VmRSS"));
    assert!(before > 8 << 20, "{before} bytes are free");
    client.run("CONFIG SET activedefrag yes");
    eventually("it is moved together", || free(&mut client) < before / 4);
    eventually("the pages are given back", || {
        client.run("MEMORY PURGE");
        status(&server, "VmRSS") < resident - before / 2
    });
    assert!(info(&mut client, "active_defrag_hits") > 1000);
    for number in (0..KEYS).filter(|number| is_kept(*number)) {
        let value = value(number);
        match number % 2 {
            0 => assert_eq!(
                client.run(&format!("GET key:{number}")),
                format!("${}\r\n{value}\r\n", value.len())
            ),
            _ => assert_eq!(
                client.run(&format!("HGETALL key:{number}")),
                format!("*4\r\n$1\r\na\r\n${}\r\n{value}\r\n$1\r\nb\r\n$1\r\n2\r\n", value.len())
            ),
        }
    }
}
