//! A failover by Sentinels: writes go on at the new master, and nothing that only the old one had is served.

use super::until;
use crate::harness::{Server, free_port};

/// Only who asks for a failover gets one: what the replica does not have yet would be lost.
pub const NEVER: u64 = 600_000;

/// A master and its replica, which a Sentinel watches.
pub struct Watched {
    servers: [Server; 2],
    master: usize,
    sentinel: Server,
}

impl Watched {
    /// The Sentinel finds a master down that is silent for so many milliseconds, and makes the replica the master.
    pub fn start(down_after_ms: u64) -> Self {
        let servers = [Server::redis(), Server::redis()];
        let (master, replica) = (&servers[0], &servers[1]);
        replica.client().run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        until("the replica follows", || {
            replica.client().run("INFO replication").contains("master_link_status:up")
        });
        let sentinel = sentinel(master, down_after_ms);
        let mut asked = sentinel.client();
        until("the Sentinel knows the replica", || {
            asked.run("SENTINEL REPLICAS main").contains(&replica.port.to_string())
        });
        Self { servers, master: 0, sentinel }
    }

    /// The first Sentinel is not there, which is no matter.
    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{}/main", self.sentinel.port)
    }

    pub fn master(&mut self) -> &mut Server {
        &mut self.servers[self.master]
    }

    pub fn replica(&self) -> &Server {
        &self.servers[1 - self.master]
    }

    /// Makes the replica a master, which the old one is not told of for some seconds.
    pub fn promote(&self) {
        let (new, mut asked) = (self.replica(), self.sentinel.client());
        until("the Sentinel begins", || asked.run("SENTINEL FAILOVER main") == "+OK\r\n");
        until("the replica is the master", || is_said(new, "ROLE", "master"));
        let address = "SENTINEL GET-MASTER-ADDR-BY-NAME main";
        until("the Sentinel says so", || asked.run(address).contains(&new.port.to_string()));
    }

    /// Makes the replica the master, when it has all that the master has said.
    pub fn fail_over(&mut self) {
        let (old, new) = (&self.servers[self.master], &self.servers[1 - self.master]);
        let mut asked = self.sentinel.client();
        until("the replica follows", || {
            is_said(new, "INFO replication", "master_link_status:up")
                && asked.run("SENTINEL REPLICAS main").contains(&new.port.to_string())
        });
        until("writes wait", || is_said(old, "CLIENT PAUSE 60000 WRITE", "OK"));
        until("the replica has everything", || {
            let offset = |server: &Server| {
                let info = ask(server, "INFO replication")?;
                info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).map(str::to_owned)
            };
            offset(old).is_some_and(|old| offset(new) == Some(old))
        });
        self.promote();
        // The Sentinel would tell it some seconds later. Until then it answers reads, and believes to be the master.
        std::thread::sleep(std::time::Duration::from_millis(fastrand::u64(..600)));
        // It may do so just now, and ends clients' connections then.
        ask(old, &format!("REPLICAOF 127.0.0.1 {}", new.port));
        ask(old, "CLIENT KILL TYPE normal SKIPME yes");
        until("writes are answered again", || is_said(old, "CLIENT UNPAUSE", "OK"));
        until("the master is the replica", || is_said(old, "ROLE", "slave"));
        self.master = 1 - self.master;
    }
}

/// Whether a server says this. A Sentinel may end any client's connection.
fn is_said(server: &Server, command: &str, expected: &str) -> bool {
    ask(server, command).is_some_and(|said| said.contains(expected))
}

/// What a server says, unless it ends the connection.
fn ask(server: &Server, command: &str) -> Option<String> {
    let mut client = server.client();
    let reply = if client.try_send(format!("{command}\r\n").as_bytes()) { client.try_read() } else { None };
    reply.map(|reply| String::from_utf8_lossy(&reply).into_owned())
}

/// A Sentinel that watches a master, and decides alone.
fn sentinel(master: &Server, down_after_ms: u64) -> Server {
    let file = master.dir.join("sentinel.conf");
    let text = format!(
        "bind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds main {down_after_ms}\nsentinel failover-timeout main 5000\n",
        master.port
    );
    std::fs::write(&file, text).unwrap();
    Server::sentinel_at(free_port(), file.to_str().unwrap())
}

#[test]
fn a_failover_is_followed() {
    let mut watched = Watched::start(1000);
    let anteroom = Server::anteroom(&["--upstream", &watched.url()]);
    let mut ours = anteroom.client();
    assert_eq!(ours.run("SET k before"), "+OK\r\n");
    assert_eq!(ours.run("GET k"), "$6\r\nbefore\r\n");
    assert_eq!(ours.run("WAIT 1 1000").get(..4), Some("-ERR"));
    assert_eq!(watched.master().client().run("WAIT 1 10000"), ":1\r\n");
    assert_eq!(
        (ours.run("RPUSH q v"), ours.run("BLPOP q 1")),
        (":1\r\n".into(), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n".into())
    );
    watched.master().stop(libc::SIGKILL);
    let replica = watched.replica();
    until("the failure is noticed", || ours.run("GET k").starts_with("-UPSTREAMDOWN"));
    until("the new master takes writes", || ours.run("SET k after") == "+OK\r\n");
    assert_eq!(
        (ours.run("GET k"), replica.client().run("GET k")),
        ("$5\r\nafter\r\n".into(), "$5\r\nafter\r\n".into())
    );
    assert_eq!(
        (ours.run("RPUSH q v"), ours.run("BLPOP q 1")),
        (":1\r\n".into(), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n".into())
    );
    replica.client().run("SET k changed");
    until("changes at the new master are heard of", || ours.run("GET k") == "$7\r\nchanged\r\n");
}

/// The old master, which has not been told yet, is not read from once the new one was written to.
#[test]
fn who_has_written_to_the_new_master_reads_nothing_of_the_old_one() {
    let mut watched = Watched::start(NEVER);
    let anteroom = Server::anteroom(&["--upstream", &watched.url()]);
    let (mut ours, mut others) = (anteroom.client(), anteroom.client());
    assert_eq!(ours.run("SET k before"), "+OK\r\n");
    assert_eq!(ours.run("GET k"), "$6\r\nbefore\r\n");
    watched.promote();
    // By a connection of its own, which is made now.
    assert_eq!(ours.run("WATCH k"), "+OK\r\n");
    assert_eq!(ours.run("MULTI"), "+OK\r\n");
    assert_eq!(ours.run("SET k after"), "+QUEUED\r\n");
    assert_eq!(ours.run("EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(watched.master().client().run("GET k"), "$6\r\nbefore\r\n");
    for client in [&mut ours, &mut others] {
        for command in ["GET k", "GETRANGE k 0 -1", "MGET k"] {
            let said = client.run(command);
            assert!(said.contains("after") || said.starts_with("-UPSTREAMDOWN"), "{command}: {said}");
        }
    }
    until("the links are at the new master", || ours.run("GET k") == "$5\r\nafter\r\n");
}

#[test]
fn a_name_that_no_sentinel_knows_is_said() {
    let master = Server::redis();
    let sentinel = sentinel(&master, NEVER);
    let anteroom =
        Server::anteroom(&["--upstream", &format!("redis-sentinel://127.0.0.1:{}/other", sentinel.port)]);
    let said = anteroom.client().run("GET k");
    assert!(
        said.starts_with("-UPSTREAMDOWN") && said.contains("no Sentinel knows where 'other' is"),
        "{said}"
    );
}
