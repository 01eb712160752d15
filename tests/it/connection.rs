//! The connection's own commands, and limits on connections.

use crate::harness::{Client, Server};

#[test]
fn hello_switches_protocols() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    assert!(client.run("HELLO 3").starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
    assert_eq!(client.run("GET nothing"), "_\r\n");
    assert!(client.run("HELLO 2").starts_with("*14\r\n"));
    assert_eq!(client.run("GET nothing"), "$-1\r\n");
    assert_eq!(client.run("HELLO 9"), "-NOPROTO unsupported protocol version\r\n");
    assert_eq!(client.run("RESET"), "+RESET\r\n");
}

#[test]
fn reply_modes() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.send_raw(b"CLIENT REPLY OFF\r\nSET a 1\r\nSET b 2\r\nCLIENT REPLY ON\r\n");
    assert_eq!(client.read(), b"+OK\r\n");
    client.send_raw(b"CLIENT REPLY SKIP\r\nSET c 3\r\nGET c\r\n");
    assert_eq!(client.read(), b"$1\r\n3\r\n");
}

#[test]
fn clients_are_listed_and_killed() {
    let server = Server::anteroom(&[]);
    let (mut watcher, mut victim) = (server.client(), server.client());
    victim.run("CLIENT SETNAME victim");
    let id = victim.run("CLIENT ID").trim_matches([':', '\r', '\n']).to_owned();
    assert!(watcher.run("CLIENT LIST").contains("name=victim"));
    assert_eq!(watcher.run(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert!(victim.is_closed());
}

#[test]
fn the_client_limit_holds_and_is_said() {
    let server = Server::anteroom(&[]);
    let mut first = server.client();
    assert_eq!(first.run("CONFIG SET maxclients 3"), "+OK\r\n");
    let mut others: Vec<Client> = (0..2).map(|_| server.client()).collect();
    others.iter_mut().for_each(|client| assert_eq!(client.run("PING"), "+PONG\r\n"));
    let mut refused = server.client();
    assert_eq!(refused.read(), b"-ERR max number of clients reached\r\n");
    assert!(refused.is_closed());
    drop(others);
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let mut client = server.client();
        client.send_raw(b"PING\r\n");
        if client.read() == b"+PONG\r\n" {
            return;
        }
    }
    panic!("places of clients that left are not given back");
}

#[test]
fn unix_sockets_serve_too() {
    let server = Server::anteroom(&["--unixsocket", "here.sock"]);
    let mut stream = std::os::unix::net::UnixStream::connect(server.dir.join("here.sock")).unwrap();
    std::io::Write::write_all(&mut stream, b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    std::io::Read::read_exact(&mut stream, &mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}
