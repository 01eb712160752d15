//! Against real sockets: what comes is what was sent, whatever the sizes, the readers and the ends.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::mpsc::RecvTimeoutError;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, LocalOptions};

use super::*;

/// Runs a test on a thread with a runtime and a ring in it.
fn with_ring(test: impl AsyncFnOnce(Rc<Ring>) + Send + 'static) {
    let (ends, end) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.expect("a runtime").block_on(async {
            let ring = Ring::new().expect("io_uring, which these tests need");
            tokio::task::spawn_local(ring.clone().drive());
            test(ring).await;
        });
        drop(ends);
    });
    // Watched from outside: a runtime that is kept busy notices no time.
    let ended: Result<(), _> = end.recv_timeout(std::time::Duration::from_secs(60));
    assert_ne!(ended, Err(RecvTimeoutError::Timeout), "it hangs");
    thread.join().expect("no panic");
}

/// A socket in the ring and its peer.
fn pair(ring: &Rc<Ring>) -> (RingStream, UnixStream) {
    let (ours, theirs) = StdStream::pair().expect("a pair of sockets");
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).expect("a socket that does not block");
    }
    (ring.add(Accepted::Unix(ours)), UnixStream::from_std(theirs).expect("a watched socket"))
}

fn tcp_pair(ring: &Rc<Ring>) -> (RingStream, tokio::net::TcpStream) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a listener");
    let theirs = std::net::TcpStream::connect(listener.local_addr().expect("its address")).expect("a socket");
    let (ours, _) = listener.accept().expect("its peer");
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).expect("a socket that does not block");
    }
    (ring.add(Accepted::Tcp(ours)), tokio::net::TcpStream::from_std(theirs).expect("a watched socket"))
}

async fn write_all(stream: &RingStream, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        stream.writable().await?;
        match stream.try_write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Answers what comes with the same, in pieces of all sizes.
async fn echo(mut stream: RingStream, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let room = 1 << random.u32(0..17);
        let read = stream.read(&mut buffer[..room]).await.expect("input");
        if read == 0 {
            return stream.writable().await.expect("the rest goes out");
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let piece = random.usize(1..=rest.len());
            write_all(&stream, &rest[..piece]).await.expect("output");
            rest = &rest[piece..];
        }
    }
}

/// Sends random bytes in random pieces while it reads them back.
async fn converse(peer: impl AsyncRead + AsyncWrite, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let len = 1 << random.u32(0..20);
    let sent: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
    let (mut reader, mut writer) = tokio::io::split(peer);
    let write = async {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let piece = random.usize(1..=rest.len().min(100_000));
            writer.write_all(&rest[..piece]).await.expect("room");
            rest = &rest[piece..];
            if random.u8(..4) == 0 {
                tokio::task::yield_now().await;
            }
        }
        writer.shutdown().await.expect("an end");
    };
    let read = async {
        let mut came = Vec::new();
        reader.read_to_end(&mut came).await.expect("the echo");
        came
    };
    let ((), came) = tokio::join!(write, read);
    assert!(came == sent, "seed {seed}: {} bytes came back of {}", came.len(), sent.len());
}

#[test]
fn what_comes_back_is_what_was_sent() {
    with_ring(async |ring| {
        let mut tasks = tokio::task::JoinSet::new();
        // More sockets than the kernel has buffers.
        for seed in 0..150 {
            if seed % 2 == 0 {
                let (ours, theirs) = pair(&ring);
                tasks.spawn_local(echo(ours, seed));
                tasks.spawn_local(converse(theirs, seed));
            } else {
                let (ours, theirs) = tcp_pair(&ring);
                tasks.spawn_local(echo(ours, seed));
                tasks.spawn_local(converse(theirs, seed));
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no panic");
        }
        assert_eq!(ring.inner.borrow().in_use(), 0, "places are given back");
    });
}

/// Answers each byte with what another thread, which the runtime watches by itself, says to it.
async fn relay(mut stream: RingStream) {
    let (ours, theirs) = StdStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a socket that does not block");
    let mut hop = UnixStream::from_std(ours).expect("a watched socket");
    std::thread::spawn(move || {
        let mut byte = [0];
        while (&theirs).read_exact(&mut byte).is_ok() && (&theirs).write_all(&byte).is_ok() {}
    });
    while let Ok(byte) = stream.read_u8().await {
        hop.write_u8(byte).await.expect("room");
        let byte = hop.read_u8().await.expect("an answer");
        write_all(&stream, &[byte]).await.expect("room");
    }
}

/// What the kernel says a moment too late must neither be missed nor keep the thread busy.
#[test]
fn whoever_waits_for_something_else_is_not_kept_waiting() {
    with_ring(async |ring| {
        let mut peers = Vec::new();
        for _ in 0..8 {
            let (ours, theirs) = StdStream::pair().expect("a pair of sockets");
            ours.set_nonblocking(true).expect("a socket that does not block");
            tokio::task::spawn_local(relay(ring.add(Accepted::Unix(ours))));
            peers.push(std::thread::spawn(move || {
                for _ in 0..10_000 {
                    (&theirs).write_all(b"x").expect("room");
                    (&theirs).read_exact(&mut [0]).expect("the echo");
                }
            }));
        }
        while peers.iter().any(|peer| !peer.is_finished()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        peers.into_iter().for_each(|peer| peer.join().expect("no panic"));
    });
}

#[test]
fn who_does_not_read_is_not_read_for_without_end() {
    with_ring(async |ring| {
        let (mut ours, mut theirs) = pair(&ring);
        let first = async { ours.read_u8().await.expect("a byte") };
        let (first, ()) = tokio::join!(first, async { theirs.write_all(b"1").await.expect("room") });
        assert_eq!(first, b'1');
        // The socket's own buffers, and what was taken before the kernel was told to stop.
        let mut written = 0;
        let refused = async {
            loop {
                written += theirs.write(&[b'x'; 10_000]).await.expect("room");
            }
        };
        tokio::time::timeout(std::time::Duration::from_millis(300), refused).await.expect_err("it stops");
        assert!(written < 4 << 20, "{written} bytes were taken of a client that is not read");
        let mut came = vec![0; written];
        ours.read_exact(&mut came).await.expect("all of it");
        assert!(came.iter().all(|byte| *byte == b'x'));
        theirs.write_all(b"on").await.expect("room again");
        let mut on = [0; 2];
        ours.read_exact(&mut on).await.expect("it goes on");
        assert_eq!(&on, b"on");
    });
}

#[test]
fn those_who_are_not_read_take_no_buffers_from_others() {
    with_ring(async |ring| {
        let mut silent = Vec::new();
        for _ in 0..200 {
            let (mut ours, mut theirs) = pair(&ring);
            theirs.write_all(b"1").await.expect("room");
            ours.read_u8().await.expect("a byte");
            // A reader that waits and is then never asked again, as one whose task turns to something else.
            let pending = std::future::poll_fn(|context| {
                Poll::Ready(
                    Pin::new(&mut ours).poll_read(context, &mut ReadBuf::new(&mut [0; 8])).is_pending(),
                )
            });
            assert!(pending.await);
            theirs.write_all(&[b'x'; 5000]).await.expect("room");
            silent.push((ours, theirs));
        }
        let (ours, theirs) = pair(&ring);
        tokio::join!(echo(ours, 1), converse(theirs, 1));
    });
}

#[test]
fn what_was_written_comes_before_the_end() {
    with_ring(async |ring| {
        for size in [1, 5_000, 300_000, 3_000_000] {
            let (ours, mut theirs) = pair(&ring);
            let say = async {
                write_all(&ours, &vec![b'x'; size]).await.expect("room");
                ours.writable().await.expect("it goes out");
                drop(ours);
            };
            let mut came = Vec::new();
            let (read, ()) = tokio::join!(theirs.read_to_end(&mut came), say);
            assert_eq!(read.expect("all, and an end"), size);
        }
    });
}

#[test]
fn a_short_reply_goes_out_even_if_the_connection_ends_at_once() {
    with_ring(async |ring| {
        let (ours, mut theirs) = pair(&ring);
        assert_eq!(ours.try_write(b"+OK\r\n").expect("room"), 5);
        drop(ours);
        let mut came = Vec::new();
        theirs.read_to_end(&mut came).await.expect("all, and an end");
        assert_eq!(came, b"+OK\r\n");
    });
}

#[test]
fn a_peer_that_goes_away_is_an_error_for_who_writes() {
    with_ring(async |ring| {
        let (mut ours, theirs) = pair(&ring);
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 8]).await.expect("the end"), 0);
        write_all(&ours, b"+OK\r\n").await.expect("it is taken");
        let error = ours.writable().await.expect_err("it is not sent");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        assert_eq!(ours.try_write(b"more").expect_err("nor is more").raw_os_error(), Some(libc::EPIPE));
    });
}

#[test]
fn a_ring_ends_with_everything_under_way() {
    with_ring(async |ring| {
        let mut peers = Vec::new();
        for _ in 0..100 {
            let (mut ours, theirs) = pair(&ring);
            let waits = std::future::poll_fn(|context| {
                Poll::Ready(
                    Pin::new(&mut ours).poll_read(context, &mut ReadBuf::new(&mut [0; 8])).is_pending(),
                )
            });
            assert!(waits.await);
            // More than its socket takes.
            while ours.try_write(&[b'x'; 100_000]).is_ok() {}
            peers.push((ours, theirs));
        }
    });
}
