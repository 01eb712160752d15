//! `DUMP` and `RESTORE`: payloads of the real Redis are taken, and it takes ours.

use anteroom::types::rdb::crc64;

use crate::harness::{Client, Server};

fn restore(client: &mut Client, key: &str, payload: &[u8], options: &str) -> String {
    let mut command: Vec<Vec<u8>> = vec![b"RESTORE".to_vec(), key.into(), b"0".to_vec(), payload.to_vec()];
    command.extend(options.split_whitespace().map(|word| word.as_bytes().to_vec()));
    client.send(&command);
    String::from_utf8(client.read()).unwrap()
}

fn dump(client: &mut Client, key: &str) -> Vec<u8> {
    client.send(&[b"DUMP".to_vec(), key.into()]);
    let reply = client.read();
    let start = reply.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    reply[start..reply.len() - 2].to_vec()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// What Redis 7.2.6 dumped, and 7.4.1 of hashes with deadlines, with a command and what it replies about the value.
const PAYLOADS: &[(&str, &str, &str)] = &[
    ("00c139300b00f44b57546e63e130", "GET k", "$5\r\n12345\r\n"),
    ("000b31323334353637383930310b005991efa4da888c99", "GET k", "$11\r\n12345678901\r\n"),
    ("00c30a3c02616261e02e010161620b00d2c96e9853f02cfd", "GETRANGE k 50 -1", "$10\r\nababababab\r\n"),
    (
        "1203020c0c00000002008161020101ff0210100000000200f178ec03f270110104ff02c312404807480000000200bc78e0\
         3200043d817902ff0b006ecaeee9c8b3bf49",
        "LRANGE k 0 3",
        "*4\r\n$1\r\na\r\n$1\r\n1\r\n$5\r\n-5000\r\n$5\r\n70000\r\n",
    ),
    (
        "0b1404000000030000000100000002000000701101000b00ec0a7c75a68239dc",
        "SMISMEMBER k 1 2 3",
        "*3\r\n:1\r\n:1\r\n:0\r\n",
    ),
    ("140c0c00000002008161020501ff0b0098347b5d798dab9c", "SMEMBERS k", "*2\r\n$1\r\na\r\n$1\r\n5\r\n"),
    ("02030162016301610b00db4b675db3524f75", "SCARD k", ":3\r\n"),
    ("100f0f000000020081660283312e3504ff0b003ad7cd0dacbd7b4b", "HGETALL k", "*2\r\n$1\r\nf\r\n$3\r\n1.5\r\n"),
    (
        "04030162c0020163c0030161c0010b0049375c256a70e582",
        "HMGET k a b c",
        "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n",
    ),
    (
        "1118180000000400816202842d696e660581610283312e3504ff0b000b5c01118656ae08",
        "ZRANGE k 0 -1 WITHSCORES",
        "*4\r\n$1\r\nb\r\n$4\r\n-inf\r\n$1\r\na\r\n$3\r\n1.5\r\n",
    ),
    (
        "0503016200000000000000400161000000000000f03f01639a9999999999b93f0b0000ed2a1b8a79b692",
        "ZRANGE k 0 0 WITHSCORES",
        "*2\r\n$1\r\nc\r\n$3\r\n0.1\r\n",
    ),
    (
        "1900d8c32cbb030000313100000009008162020201f400d8c32cbb0300000981630285746872656506f4f4d9c32cbb0300\
         000981610201010001ff0c0002bc4a724fa6b86c",
        "HPEXPIRETIME k FIELDS 3 a b c",
        "*3\r\n:-1\r\n:4102444800000\r\n:4102444800500\r\n",
    ),
    (
        "1800d8c32cbb0300000341f50163057468726565010162c3094041013232e03400013232000161c0010c00be33d62fd22df0d5",
        "HPEXPIRETIME k FIELDS 3 a b c",
        "*3\r\n:-1\r\n:4102444800000\r\n:4102444800500\r\n",
    ),
];

#[test]
fn payloads_of_redis_are_taken() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for (payload, command, expected) in PAYLOADS {
        let payload = unhex(payload);
        assert_eq!(restore(&mut client, "k", &payload, "REPLACE"), "+OK\r\n", "{command}");
        assert_eq!(client.run(command), *expected);
        // Small values without compression are dumped byte for byte as Redis does.
        if payload.len() < 40 && !payload.starts_with(&[0, 0xc3]) && !matches!(payload[0], 2 | 4 | 5) {
            assert_eq!(dump(&mut client, "k"), payload, "{command}");
        }
    }
}

/// A payload as Redis 7.0 would have written it.
fn as_version_10(mut payload: Vec<u8>) -> Vec<u8> {
    payload.truncate(payload.len() - 10);
    payload.extend_from_slice(&[10, 0]);
    payload.extend_from_slice(&crc64(&payload).to_le_bytes());
    payload
}

#[test]
fn values_go_to_redis_and_back() {
    let (our_server, their_server) = (Server::anteroom(&[]), Server::redis());
    let (mut ours, mut theirs) = (our_server.client(), their_server.client());
    let many: Vec<String> = (0..700).map(|n| format!("{n}")).collect();
    let words: Vec<String> = (0..700).map(|n| format!("word-{n}")).collect();
    let scored: Vec<String> = (0..700).map(|n| format!("{}.25 m{n}", n % 50)).collect();
    for (fill, look) in [
        ("SET k some-text".to_owned(), "GET k"),
        (format!("SET k {}", "long".repeat(5000)), "GET k"),
        (format!("RPUSH k {}", many.join(" ")), "LRANGE k 0 -1"),
        (format!("RPUSH k {} {}", "x".repeat(10_000), "y".repeat(70)), "LRANGE k 0 -1"),
        (format!("SADD k {}", many.join(" ")), "SORT k"),
        (format!("SADD k {}", words.join(" ")), "SORT k ALPHA"),
        (format!("SADD k {}", many[..300].join(" ")), "SORT k"),
        (format!("HSET k {}", words[..40].join(" ")), "HGETALL k"),
        (format!("ZADD k {}", scored.join(" ")), "ZRANGE k 0 -1 WITHSCORES"),
        (format!("ZADD k {}", scored[..20].join(" ")), "ZRANGE k 0 -1 WITHSCORES"),
    ] {
        for client in [&mut ours, &mut theirs] {
            client.run("DEL k other");
            assert!(!client.run(&fill).starts_with('-'));
        }
        let expected = ours.run(look);
        let (our_payload, their_payload) = (dump(&mut ours, "k"), dump(&mut theirs, "k"));
        assert_eq!(restore(&mut ours, "k", &their_payload, "REPLACE"), "+OK\r\n", "{look}");
        assert_eq!(ours.run(look), expected);
        assert_eq!(restore(&mut theirs, "k", &as_version_10(our_payload), "REPLACE"), "+OK\r\n", "{look}");
        assert_eq!(theirs.run(look), expected);
    }
}

#[test]
fn options_and_faults() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let payload = unhex(PAYLOADS[0].0);
    assert_eq!(client.run("DUMP nothing"), "$-1\r\n");
    assert_eq!(restore(&mut client, "k", &payload, ""), "+OK\r\n");
    let mut fault = |payload: &[u8], options: &str, expected: &str| {
        assert_eq!(restore(&mut client, "k", payload, options), format!("-{expected}\r\n"), "{options}");
    };
    fault(&payload, "", "BUSYKEY Target key name already exists.");
    fault(b"", "REPLACE", "ERR DUMP payload version or checksum are wrong");
    fault(
        &[&payload[..5], &[99], &payload[6..]].concat(),
        "REPLACE",
        "ERR DUMP payload version or checksum are wrong",
    );
    fault(&as_version_10(vec![0; 11]), "REPLACE IDLETIME -1", "ERR Invalid IDLETIME value, must be >= 0");
    fault(&payload, "REPLACE FREQ 256", "ERR Invalid FREQ value, must be >= 0 and <= 255");
    fault(&payload, "REPLACE FREQ 1 IDLETIME 1", "ERR syntax error");
    fault(&payload, "REPLACE IDLETIME", "ERR syntax error");
    fault(&as_version_10([&[7, 1][..], &[0; 10]].concat()), "REPLACE", "ERR Bad data format");
    let restore_for = |client: &mut Client, ttl: &str, options: &[&str]| {
        let mut command = vec![b"RESTORE".to_vec(), b"t".to_vec(), ttl.into(), payload.clone()];
        command.extend(options.iter().map(|option| option.as_bytes().to_vec()));
        client.send(&command);
        String::from_utf8(client.read()).unwrap()
    };
    assert_eq!(restore_for(&mut client, "-1", &[]), "-ERR Invalid TTL value, must be >= 0\r\n");
    assert_eq!(restore_for(&mut client, "100000", &["IDLETIME", "1000"]), "+OK\r\n");
    assert_eq!(client.run("OBJECT IDLETIME t"), ":1000\r\n");
    assert_eq!(client.run("TTL t"), ":100\r\n");
    assert_eq!(restore_for(&mut client, "99999999999999", &["ABSTTL", "REPLACE"]), "+OK\r\n");
    assert_eq!(client.run("PEXPIRETIME t"), ":99999999999999\r\n");
    assert_eq!(restore_for(&mut client, "1", &["ABSTTL", "REPLACE"]), "+OK\r\n");
    assert_eq!(client.run("EXISTS t"), ":0\r\n");
    client.run("CONFIG SET maxmemory-policy allkeys-lfu");
    assert_eq!(restore_for(&mut client, "0", &["FREQ", "77"]), "+OK\r\n");
    assert_eq!(client.run("OBJECT FREQ t"), ":77\r\n");
}
