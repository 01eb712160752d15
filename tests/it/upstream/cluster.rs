//! A cluster upstream: every slot is served, keys of several nodes are split or refused, and slots and masters may move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::tls::{Identity, is_encrypted};
use super::until;
use crate::harness::{Client, Server, free_port};

pub struct Cluster {
    pub nodes: Vec<Server>,
    pub anteroom: Server,
}

impl Cluster {
    /// Three masters, so many replicas of the first ones, and an Anteroom before them.
    pub fn start(replicas: usize, section: &str) -> Self {
        let nodes = Self::nodes(replicas, &[]);
        let url = format!("redis-cluster://127.0.0.1:1,127.0.0.1:{}", nodes[0].port);
        Self::before(nodes, &url, section)
    }

    pub fn before(nodes: Vec<Server>, url: &str, section: &str) -> Self {
        let anteroom = Server::configured(&format!("[upstream]\nurl = \"{url}\"\n{section}\n"), &[]);
        let mut ours = anteroom.client();
        until("all nodes are connected", || ours.run("INFO upstream").contains("upstream_up:1"));
        Self { nodes, anteroom }
    }

    /// The nodes alone, each with some arguments of its own.
    pub fn nodes(replicas: usize, arguments: &[Vec<String>]) -> Vec<Server> {
        let nodes: Vec<Server> = (0..3 + replicas)
            .map(|index| {
                let bus = free_port().to_string();
                let mut all = vec![
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "1000",
                    "--repl-diskless-sync-delay",
                    "0",
                ];
                all.extend(arguments.get(index).into_iter().flatten().map(String::as_str));
                Server::redis_with(&all)
            })
            .collect();
        let mut clients: Vec<Client> = nodes.iter().map(Server::client).collect();
        let first = (nodes[0].port, clients[0].run("CONFIG GET cluster-port"));
        let bus = first.1.trim().rsplit("\r\n").next().unwrap().to_owned();
        for (index, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.run(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1)), "+OK\r\n");
            if index > 0 {
                assert_eq!(client.run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", first.0)), "+OK\r\n");
            }
        }
        for (index, range) in ["0 5460", "5461 10922", "10923 16383"].iter().enumerate() {
            assert_eq!(clients[index].run(&format!("CLUSTER ADDSLOTSRANGE {range}")), "+OK\r\n");
        }
        let count = nodes.len();
        let knows = |client: &mut Client| {
            client.run("CLUSTER INFO").contains(&format!("cluster_known_nodes:{count}"))
                && client.run("CLUSTER INFO").contains("cluster_state:ok")
        };
        until("the nodes know each other", || clients.iter_mut().all(knows));
        for replica in 0..replicas {
            let master = id(&mut clients[replica]);
            let client = &mut clients[3 + replica];
            assert_eq!(client.run(&format!("CLUSTER REPLICATE {master}")), "+OK\r\n");
            until("the replica follows", || client.run("INFO replication").contains("master_link_status:up"));
        }
        nodes
    }

    /// A command at whichever node has its key.
    pub fn at_owner(&self, words: &str) -> String {
        for node in &self.nodes {
            let said = node.client().run(words);
            if !said.starts_with("-MOVED") {
                return said;
            }
        }
        panic!("nobody has the key of {words}");
    }
}

pub fn id(client: &mut Client) -> String {
    client.run("CLUSTER MYID").trim().rsplit("\r\n").next().unwrap().to_owned()
}

fn array(elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<String> = elements.collect();
    let bulk = |text: &String| format!("${}\r\n{text}\r\n", text.len());
    format!("*{}\r\n{}", elements.len(), elements.iter().map(bulk).collect::<String>())
}

#[test]
fn commands_go_to_the_node_of_their_slot() {
    let cluster = Cluster::start(0, "");
    let mut ours = cluster.anteroom.client();
    for number in 0..500 {
        assert_eq!(ours.run(&format!("SET k{number} v{number}")), "+OK\r\n");
    }
    for number in 0..500 {
        let value = format!("v{number}");
        let expected = format!("${}\r\n{value}\r\n", value.len());
        for _ in 0..2 {
            assert_eq!(ours.run(&format!("GET k{number}")), expected);
        }
        if number % 25 == 0 {
            assert_eq!(cluster.at_owner(&format!("GET k{number}")), expected);
        }
    }
    assert!(ours.run("INFO upstream").contains("upstream_hits:500"), "{}", ours.run("INFO upstream"));
    // Changed by others at each node, and heard of.
    for number in 0..30 {
        assert_eq!(cluster.at_owner(&format!("SET k{number} other")), "+OK\r\n");
    }
    until("all changes are heard of", || {
        (0..30).all(|number| ours.run(&format!("GET k{number}")) == "$5\r\nother\r\n")
    });

    // Split over nodes.
    let names: Vec<String> = (100..200).map(|number| format!("k{number}")).collect();
    let values = array((100..200).map(|number| format!("v{number}")));
    assert_eq!(ours.run(&format!("MGET {}", names.join(" "))), values);
    assert_eq!(ours.run("MSET m1 a m2 b m3 c m4 d m1 e"), "+OK\r\n");
    assert_eq!(
        ours.run("MGET m1 none m2 m3 m4"),
        "*5\r\n$1\r\ne\r\n$-1\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n"
    );
    assert_eq!(ours.run("EXISTS m1 m1 m2 m3 none"), ":4\r\n");
    assert_eq!(ours.run("TOUCH m1 m2 m3 none"), ":3\r\n");
    assert_eq!(ours.run("DBSIZE"), ":504\r\n");
    assert_eq!(ours.run("DEL m1 m2 none"), ":2\r\n");
    assert_eq!(ours.run("UNLINK m3 m4"), ":2\r\n");
    assert_eq!(ours.run("KEYS k*").split("\r\n").next(), Some("*500"));

    // Not split.
    let crossed = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    for words in ["SINTER a b c", "RENAME a b", "MSETNX a 1 b 2", "BLPOP a b 1", "WATCH a b"] {
        assert_eq!(ours.run(words), crossed, "{words}");
    }
    assert_eq!(ours.run("SELECT 1"), "-ERR SELECT is not allowed in cluster mode\r\n");
    assert_eq!(ours.run("SELECT 0"), "+OK\r\n");

    // A walk over all nodes.
    let (mut cursor, mut seen) = ("0".to_owned(), std::collections::HashSet::new());
    loop {
        let page = ours.run(&format!("SCAN {cursor} COUNT 50"));
        let mut lines = page.split("\r\n").skip(2);
        cursor = lines.next().unwrap().to_owned();
        seen.extend(lines.filter(|line| line.starts_with('k')).map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 500);

    // Scripts at every node.
    let script = "return redis.call('incr',KEYS[1])";
    let load: Vec<Vec<u8>> = [&b"SCRIPT"[..], b"LOAD", script.as_bytes()].map(<[u8]>::to_vec).into();
    ours.send(&load);
    let sha = String::from_utf8(ours.read()).unwrap().split("\r\n").nth(1).unwrap().to_owned();
    for number in 0..20 {
        assert_eq!(ours.run(&format!("EVALSHA {sha} 1 c{number}")), ":1\r\n");
    }
    assert_eq!(ours.run("CACHE.INVALIDATE c*"), ":20\r\n");

    // What needs a connection of its own.
    assert_eq!(ours.run("RPUSH q v"), ":1\r\n");
    assert_eq!(ours.run("BLPOP q 1"), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n");
    assert_eq!(ours.run("FLUSHALL"), "+OK\r\n");
    assert_eq!((ours.run("DBSIZE"), ours.run("GET k1")), (":0\r\n".into(), "$-1\r\n".into()));
}

#[test]
fn transactions_are_of_one_slot() {
    let cluster = Cluster::start(0, "");
    let mut ours = cluster.anteroom.client();
    for tag in ["a", "b", "c", "d"] {
        for words in ["MULTI".to_owned(), format!("SET {{{tag}}}1 x"), format!("INCR {{{tag}}}2")] {
            ours.run(&words);
        }
        assert_eq!(ours.run("EXEC"), "*2\r\n+OK\r\n:1\r\n");
        assert_eq!(cluster.at_owner(&format!("GET {{{tag}}}2")), "$1\r\n1\r\n");
    }
    for words in ["MULTI", "SET a 1", "SET b 2"] {
        ours.run(words);
    }
    assert_eq!(ours.run("EXEC"), "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    assert_eq!(ours.run("EXISTS a b"), ":0\r\n");
    for (change, reply) in [(false, "*1\r\n+OK\r\n"), (true, "*-1\r\n")] {
        assert_eq!(ours.run("WATCH w"), "+OK\r\n");
        if change {
            cluster.at_owner("SET w other");
        }
        ours.run("MULTI");
        ours.run("SET w mine");
        assert_eq!(ours.run("EXEC"), reply);
    }
}

/// Moves a slot as `redis-cli --cluster reshard` does.
fn migrate(from: &Server, to: &Server, others: &[&Server], slot: u16) {
    let (mut source, mut target) = (from.client(), to.client());
    let (source_id, target_id) = (id(&mut source), id(&mut target));
    assert_eq!(target.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}")), "+OK\r\n");
    assert_eq!(source.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")), "+OK\r\n");
    loop {
        let keys = source.run(&format!("CLUSTER GETKEYSINSLOT {slot} 1"));
        let Some(key) = keys.split("\r\n").nth(2).filter(|key| !key.is_empty()) else { break };
        let said = source.run(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
        assert!(said == "+OK\r\n" || said == "+NOKEY\r\n", "{said}");
        std::thread::sleep(Duration::from_millis(10));
    }
    for node in [to, from].into_iter().chain(others.iter().copied()) {
        assert_eq!(node.client().run(&format!("CLUSTER SETSLOT {slot} NODE {target_id}")), "+OK\r\n");
    }
}

#[test]
fn slots_move_under_load_and_nothing_goes_back() {
    let cluster = Cluster::start(0, "");
    let mut ours = cluster.anteroom.client();
    let slot: u16 = cluster.nodes[0].client().run("CLUSTER KEYSLOT {tag}").trim()[1..].parse().unwrap();
    let keys: Vec<String> = (0..10).map(|number| format!("{{tag}}{number}")).collect();
    for key in &keys {
        assert_eq!(ours.run(&format!("SET {key} 0")), "+OK\r\n");
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..10).map(|_| AtomicU64::new(0)).collect());
    let checks = Arc::new(AtomicU64::new(0));
    let number = |reply: &str| -> u64 {
        let text = reply.split("\r\n").nth(usize::from(reply.starts_with('$'))).unwrap();
        text.trim_start_matches(':').parse().unwrap_or_else(|_| panic!("{reply}"))
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = cluster.anteroom.client();
                while !is_over.load(Ordering::Relaxed) {
                    for (index, key) in keys.iter().enumerate() {
                        let before = acknowledged[index].load(Ordering::SeqCst);
                        let read = number(&client.run(&format!("GET {key}")));
                        assert!(read >= before, "{key}: {before} was acknowledged, {read} is read");
                        checks.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut client = cluster.anteroom.client();
            let mut last = vec![0; keys.len()];
            while !is_over.load(Ordering::Relaxed) {
                for (index, key) in keys.iter().enumerate() {
                    let now = number(&client.run(&format!("INCR {key}")));
                    // Each is run once, whatever is redirected.
                    assert_eq!(now, last[index] + 1, "{key}");
                    last[index] = now;
                    acknowledged[index].store(now, Ordering::SeqCst);
                    assert_eq!(number(&client.run(&format!("GET {key}"))), now, "{key}");
                    // In one piece, and in order.
                    client.send(
                        &["SET", &format!("{{tag}}p{index}"), "1"].map(|word| word.as_bytes().to_vec()),
                    );
                    client.send(&["INCR", &format!("{{tag}}p{index}")].map(|word| word.as_bytes().to_vec()));
                    assert_eq!((client.read(), client.read()), (b"+OK\r\n".to_vec(), b":2\r\n".to_vec()));
                }
            }
        });
        let mut owner =
            cluster.nodes.iter().position(|node| !node.client().run("GET {tag}0").starts_with('-'));
        for _ in 0..6 {
            let from = owner.unwrap();
            let to = (from + 1) % 3;
            let nodes = &cluster.nodes;
            migrate(&nodes[from], &nodes[to], &[&nodes[(from + 2) % 3]], slot);
            owner = Some(to);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(checks.load(Ordering::Relaxed) > 1000);
    // What others write at the new node is heard of.
    assert_eq!(ours.run("GET {tag}0"), cluster.at_owner("GET {tag}0"));
    cluster.at_owner("SET {tag}0 moved");
    until("the new node tells of changes", || ours.run("GET {tag}0") == "$5\r\nmoved\r\n");
}

#[test]
fn a_master_that_dies_is_followed_by_its_replica() {
    let mut cluster = Cluster::start(3, "");
    let mut ours = cluster.anteroom.client();
    let key = (0..100)
        .map(|number| format!("k{number}"))
        .find(|key| !cluster.nodes[0].client().run(&format!("GET {key}")).starts_with("-MOVED"))
        .unwrap();
    assert_eq!(ours.run(&format!("SET {key} 1")), "+OK\r\n");
    let mut replica = cluster.nodes[3].client();
    assert_eq!(replica.run("READONLY"), "+OK\r\n");
    until("the replica has the key", || replica.run(&format!("GET {key}")) == "$1\r\n1\r\n");
    cluster.nodes[0].stop(libc::SIGKILL);
    let (mut last, mut unknown, mut attempts) = (1, 0, 0);
    let mut after = 0;
    while after < 20 {
        attempts += 1;
        assert!(attempts < 2000, "no replica has taken over");
        // An answer or an error comes within the timeout: the harness gives up on what does not come.
        let said = ours.run(&format!("INCR {key}"));
        if said.starts_with('-') {
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(number) = said.strip_prefix(':') {
            let number: u64 = number.trim().parse().unwrap();
            assert!(
                (last + 1..=last + 1 + unknown).contains(&number),
                "{number} after {last}, {unknown} unknown"
            );
            (last, unknown, after) = (number, 0, after + 1);
            assert_eq!(
                ours.run(&format!("GET {key}")),
                format!("${}\r\n{number}\r\n", number.to_string().len())
            );
        } else if said.starts_with("-OUTCOMEUNKNOWN") {
            unknown += 1;
        } else {
            assert!(said.starts_with("-UPSTREAMDOWN") || said.starts_with("-CLUSTERDOWN"), "{said}");
        }
    }
    until("all is connected", || ours.run("INFO upstream").contains("upstream_up:1"));
    // The one that is dead was dialled for as long as it was named, and is no more.
    let dead = format!("(redis://127.0.0.1:{}/0) cannot be reached", cluster.nodes[0].port);
    let dialled = || cluster.anteroom.log().matches(&dead).count();
    assert!(dialled() > 0, "{}", cluster.anteroom.log());
    until("the dead node is retired", || ours.run("INFO upstream").contains("upstream_nodes:3"));
    let before = dialled();
    // It would be dialled each second by each of two links.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(dialled(), before, "{}", cluster.anteroom.log());
    assert!(ours.run("INFO upstream").contains("upstream_up:1"));
    assert_eq!(ours.run(&format!("GET {key}")), format!("${}\r\n{last}\r\n", last.to_string().len()));
    let hits = |ours: &mut Client| {
        let info = ours.run("INFO upstream");
        let line = info.lines().find_map(|line| line.strip_prefix("upstream_hits:"));
        line.unwrap().parse::<u64>().unwrap()
    };
    // What is kept is fresh without it.
    let hits_before = hits(&mut ours);
    ours.run(&format!("GET {key}"));
    assert_eq!(hits(&mut ours), hits_before + 1);
}

#[test]
fn that_upstream_is_no_cluster_is_said_once() {
    let redis = Server::redis();
    let url = format!("redis-cluster://127.0.0.1:{}", redis.port);
    let anteroom = Server::configured(&format!("[upstream]\nurl = \"{url}\"\ntimeout = \"300ms\"\n"), &[]);
    let mut ours = anteroom.client();
    let cause = "cluster support disabled";
    // Each asks upstream again who has which slot.
    for words in ["GET k", "SET k v", "MGET a b", "BLPOP q 1", "DBSIZE", "GET k"] {
        let said = ours.run(words);
        assert!(said.starts_with("-UPSTREAMDOWN") && said.contains(cause), "{words}: {said}");
    }
    assert!(super::calls(&mut redis.client(), "cluster|info") > 2);
    assert_eq!(anteroom.log().matches(cause).count(), 1, "{}", anteroom.log());
    // Another cause is said too.
    drop(redis);
    until("the new cause is said", || ours.run("GET k").contains("refused"));
    assert_eq!(anteroom.log().matches(cause).count(), 1, "{}", anteroom.log());
    assert!(anteroom.log().contains("refused"), "{}", anteroom.log());
}

#[test]
fn limits_of_all_hosts_are_decided_by_the_node_of_their_key() {
    let cluster = Cluster::start(0, "[ratelimit]\nscope = \"upstream\"");
    let mut ours = cluster.anteroom.client();
    for number in 0..12 {
        for refused in [0, 0, 1] {
            let said = ours.run(&format!("RATELIMIT.TAKE l{number} 2 86400000"));
            assert_eq!(said.split("\r\n").nth(1), Some(format!(":{refused}").as_str()), "{said}");
        }
        assert_eq!(cluster.at_owner(&format!("EXISTS l{number}")), ":1\r\n");
        // Within a transaction too, if all is at one node.
        ours.run("MULTI");
        ours.run(&format!("SET {{l{number}}}:said yes"));
        ours.run(&format!("RATELIMIT.TAKE l{number} 2 86400000"));
        assert!(ours.run("EXEC").starts_with("*2\r\n+OK\r\n*5\r\n:1\r\n:2\r\n:0\r\n"));
    }
    ours.run("MULTI");
    ours.run("RATELIMIT.TAKE l1 2 86400000");
    ours.run("RATELIMIT.TAKE l2 2 86400000");
    assert!(ours.run("EXEC").starts_with("-CROSSSLOT"));
}

#[test]
fn nodes_are_reached_by_tls() {
    let identity = Identity::new();
    let ports = [(); 3].map(|()| free_port());
    // By the bus too: or else Redis 7.0 names the ports that do not speak TLS.
    let all_by_tls = ["--tls-cluster".to_owned(), "yes".to_owned()];
    let arguments = ports.map(|port| [identity.arguments(port), all_by_tls.to_vec()].concat());
    let nodes = Cluster::nodes(0, &arguments);
    let url = format!("rediss-cluster://localhost:{}", ports[0]);
    let cluster = Cluster::before(nodes, &url, &identity.trusted());
    let mut ours = cluster.anteroom.client();
    for number in 0..100 {
        assert_eq!(ours.run(&format!("SET k{number} 1")), "+OK\r\n");
        assert_eq!(ours.run(&format!("GET k{number}")), "$1\r\n1\r\n");
    }
    cluster.at_owner("RPUSH q v");
    assert_eq!(ours.run("BLPOP q 1"), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n");
    cluster.at_owner("SET k1 changed");
    until("the change is seen", || ours.run("GET k1") == "$7\r\nchanged\r\n");
    for (node, port) in cluster.nodes.iter().zip(ports) {
        assert!(is_encrypted(node, port), "{}", node.client().run("CLIENT LIST"));
    }
}
