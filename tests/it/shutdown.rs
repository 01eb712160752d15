//! The end in good order.

use crate::harness::Server;

#[test]
fn sigterm_ends_with_zero_and_replies_are_out() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::anteroom(&["--unixsocket", "gone.sock"]);
        let (mut idle, mut blocked, mut busy) = (server.client(), server.client(), server.client());
        assert_eq!(idle.run("PING"), "+PONG\r\n");
        blocked.send_raw(b"BLPOP nothing 0\r\n");
        busy.send_raw(&b"SET k v\r\n".repeat(1000));
        (0..1000).for_each(|_| assert_eq!(busy.read(), b"+OK\r\n"));
        let status = server.stop(signal);
        assert_eq!(status.code(), Some(0));
        assert!(idle.is_closed() && blocked.is_closed() && busy.is_closed());
        assert!(std::net::TcpStream::connect(("127.0.0.1", server.port)).is_err());
        assert!(!server.dir.join("gone.sock").exists());
    }
}

#[test]
fn shutdown_is_a_command_too() {
    let mut server = Server::anteroom(&[]);
    let mut client = server.client();
    client.send_raw(b"SHUTDOWN NOSAVE\r\n");
    assert!(client.is_closed());
    assert_eq!(server.wait().code(), Some(0));
}
