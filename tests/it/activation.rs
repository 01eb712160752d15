//! Sockets that whoever starts the process has opened: a client that comes before the server, or between two, is served.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};

use std::io::{Read, Write};

use crate::harness::PATIENCE;

/// A descriptor that a child process inherits.
fn inherited(socket: &impl AsRawFd) -> OwnedFd {
    // SAFETY: the descriptor is open; the new one is ours alone.
    let fd = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD, 100) };
    assert!(fd >= 100);
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The server, as systemd would start it.
fn start(sockets: &[OwnedFd], dir: &std::path::Path) -> Child {
    let numbers: Vec<String> = sockets
        .iter()
        .enumerate()
        .map(|(index, socket)| format!("{}<&{}", index + 3, socket.as_raw_fd()))
        .collect();
    let script = format!("LISTEN_PID=$$ exec \"$0\" --admin off --log-level error {}", numbers.join(" "));
    let mut command = Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_anteroom")]).current_dir(dir);
    command.env("LISTEN_FDS", sockets.len().to_string()).spawn().unwrap()
}

fn ping(mut stream: impl Read + Write) {
    stream.write_all(b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn sockets_of_whoever_starts_it_are_served() {
    let dir = std::env::temp_dir().join(format!("anteroom-activation-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let path = dir.join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let ports = [&first, &second].map(|listener| listener.local_addr().unwrap().port());
    let sockets = [inherited(&first), inherited(&unix), inherited(&second)];
    for _ in 0..2 {
        let early = tcp(ports[0]);
        let mut server = start(&sockets, &dir);
        ping(early);
        ping(tcp(ports[1]));
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ping(stream);
        // SAFETY: a child of ours that has not been waited for.
        unsafe { libc::kill(server.id() as i32, libc::SIGTERM) };
        assert!(server.wait().unwrap().success());
        // It is not the server's, which leaves it there.
        assert!(path.exists());
    }
    // What is no socket is said, and nothing served.
    let file = std::fs::File::create(dir.join("file")).unwrap();
    assert!(!start(&[inherited(&file)], &dir).wait().unwrap().success());
    std::fs::remove_dir_all(dir).unwrap();
}
