//! Publish and subscribe, and keyspace notifications: who hears what, in the words of Redis.

use crate::harness::{Client, Server};

fn words(command: &str) -> Vec<Vec<u8>> {
    command.split(' ').map(|word| word.replace('~', " ").into_bytes()).collect()
}

/// Runs steps on ours and on Redis: `a` speaks RESP2 and listens, so does `c` in RESP3, `b` only has replies.
fn compare(prepare: &[&str], steps: &str) {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let open = |server: &Server| {
        let mut clients = [server.client(), server.client(), server.client()];
        clients[2].run("HELLO 3");
        prepare.iter().for_each(|command| assert!(clients[1].run(command).starts_with('+'), "{command}"));
        clients
    };
    let (mut ours, mut theirs) = (open(&ours), open(&theirs));
    let mut differences = Vec::new();
    for step in steps.split('|') {
        let (who, command) = step.split_at(2);
        let who = ["a ", "b ", "c "].iter().position(|name| *name == who).unwrap();
        let run = |clients: &mut [Client; 3]| {
            for command in command.split(';') {
                clients[who].send(&words(command));
            }
            let reply = (who == 1).then(|| String::from_utf8_lossy(&clients[1].read()).into_owned());
            let (mut first, mut third) = (clients[0].frames(), clients[2].frames());
            // Redis 7.0 sends a client its own message before the reply, later ones behind it; patterns have no order.
            third.sort();
            if command.starts_with("PUBLISH") {
                first.sort();
            }
            (reply, first, third)
        };
        let (ours, theirs) = (run(&mut ours), run(&mut theirs));
        // `HELLO` tells the version.
        if ours != theirs && !command.starts_with("HELLO") {
            differences.push(format!("{step}\n  {ours:?}\n  {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn messages_and_replies_are_those_of_redis() {
    compare(
        &[],
        "b PUBLISH x nobody|b PUBSUB CHANNELS|b PUBSUB NUMSUB|b PUBSUB NUMPAT|b PUBSUB|b PUBSUB nope|b PUBSUB CHANNELS a b\
        |b PUBLISH x|b SPUBLISH x|a SUBSCRIBE|a PSUBSCRIBE|a UNSUBSCRIBE|a PUNSUBSCRIBE|a SUNSUBSCRIBE|a UNSUBSCRIBE x y\
        |a SUBSCRIBE x y x|c SUBSCRIBE x|b PUBLISH x hello|b PUBLISH y two~words|b PUBLISH z no|b PUBLISH x \
        |a PING|a PING hi|a PING a b|a GET k|a HELLO 3|a CLIENT ID|a MULTI|a NOSUCH|a PUBLISH x y|c PING|c PING hi|c GET k|c SET k v\
        |a PSUBSCRIBE h*llo x h[ae]llo|c PSUBSCRIBE h?llo|b PUBLISH hello 1|b PUBLISH hallo 2|b PUBLISH x 3\
        |b PUBSUB NUMSUB x y z|b PUBSUB NUMPAT|b PUBSUB CHANNELS y*|b PUBSUB CHANNELS q*\
        |a SSUBSCRIBE s|c SSUBSCRIBE s t|b SPUBLISH s 1|b SPUBLISH x 1|b PUBLISH s 1|b PUBSUB SHARDNUMSUB s t x|b PUBSUB SHARDCHANNELS t*\
        |b PUBSUB SHARDCHANNELS a b|a SUNSUBSCRIBE q|a SUNSUBSCRIBE s|b SPUBLISH s 2|c SUNSUBSCRIBE t|c SUNSUBSCRIBE|c SUNSUBSCRIBE\
        |a UNSUBSCRIBE y|a PUNSUBSCRIBE x|b PUBLISH x 4|a UNSUBSCRIBE|a GET k|a PUNSUBSCRIBE h*llo h[ae]llo|a GET k|b PUBLISH hello 5\
        |c PUBLISH x own|c MULTI;SET k w;SUBSCRIBE q;EXEC|b PUBLISH q 6|c UNSUBSCRIBE none|c UNSUBSCRIBE q\
        |b EVAL return~redis.call('publish','x','script') 0|b EVAL return~redis.call('subscribe','x') 0\
        |b MULTI|b PUBLISH x tx|b EXEC|c HELLO 2|b PUBLISH x resp2|c GET k|c PING|c UNSUBSCRIBE|c PUNSUBSCRIBE|c GET k\
        |a SUBSCRIBE x|a RESET|a GET k|b PUBLISH x 7|c RESET|b PUBSUB NUMSUB x|b PUBSUB NUMPAT\
        |a MULTI;SUBSCRIBE x;EXEC|b PUBLISH x 8|a RESET",
    );
}

/// Events of commands on all types, key by key and event by event.
#[test]
fn keyspace_notifications_are_those_of_redis() {
    compare(
        &["CONFIG SET notify-keyspace-events KEA"],
        "a PSUBSCRIBE __key*__:*|b SET k v|b SET k w EX 100|b GETSET k x|b GETDEL k|b GETDEL k|b SETEX k 1000 v|b PSETEX k 1000000 v|b SETNX k v|b SETNX n v\
        |b MSET a 1 b 2|b MSETNX a 1 c 2|b MSETNX c 1 d 2|b APPEND a x|b INCR b|b INCRBYFLOAT b 1.5|b SETRANGE a 2 z|b SETRANGE new 0 \
        |b GETEX a EX 100|b GETEX a PERSIST|b GETEX a|b EXPIRE a 100|b PERSIST a|b PERSIST a|b EXPIRE a -1|b PEXPIREAT b 1|b DEL a b c|b UNLINK d n k\
        |b SETBIT bits 3 1|b BITOP NOT other bits|b BITOP AND other none none2|b BITFIELD bits SET u8 0 7|b BITFIELD bits GET u8 0|b PFADD h a b|b PFADD h a|b PFADD h2 c|b PFMERGE h h2\
        |b RPUSH l 1 2 3|b LPUSHX l 0|b LPUSHX nol 0|b LPOP l|b RPOP l 9|b RPUSH l a b c b|b LINSERT l BEFORE b x|b LINSERT l BEFORE q x|b LSET l 0 z|b LREM l 0 b|b LREM l 0 b|b LTRIM l 0 0|b LTRIM l 5 6\
        |b RPUSH l 1 2|b RPOPLPUSH l m|b LMOVE l m LEFT RIGHT|b LMPOP 2 l m LEFT COUNT 9|b SADD s 1 2 3|b SADD s 1|b SREM s 9|b SREM s 1|b SMOVE s t 2|b SMOVE s t 9|b SPOP s|b SADD s 1 2|b SINTERSTORE u s t|b SUNIONSTORE u s t|b SDIFFSTORE u none s\
        |b HSET h3 f 1 g 2|b HSETNX h3 f 1|b HSETNX h3 i 1|b HINCRBY h3 f 1|b HINCRBYFLOAT h3 f 1.5|b HDEL h3 f|b HDEL h3 f|b HDEL h3 g i|b HMSET h4 a 1\
        |b ZADD z 1 a 2 b|b ZADD z 1 a|b ZADD z XX 1 q|b ZADD z INCR 3 a|b ZINCRBY z 1 a|b ZREM z q|b ZREM z a|b ZPOPMIN z|b ZADD z 1 a 2 b 3 c 4 d|b ZPOPMAX z 2|b ZREMRANGEBYSCORE z 9 10|b ZREMRANGEBYRANK z 0 0|b ZREMRANGEBYLEX z - +\
        |b ZADD z 1 a 2 b|b ZUNIONSTORE y 1 z|b ZINTERSTORE y 2 z none|b ZDIFFSTORE y 1 z|b ZRANGESTORE x z 0 0|b ZRANGESTORE x z 9 9|b ZMPOP 1 z MIN COUNT 9|b GEOADD geo 1 1 p|b GEOADD geo 1 1 p|b GEOSEARCHSTORE g2 geo FROMMEMBER p BYRADIUS 1 m\
        |b RENAME geo geo2|b RENAMENX geo2 g2|b RENAMENX geo2 g3|b COPY g3 g4|b COPY g3 g4 REPLACE|b MOVE g3 1|b RPUSH list 3 1 2|b SORT list STORE sorted|b SORT none STORE sorted|b EXPIRE list 1000|b EXPIRE list 500 GT|b EXPIREAT list 1\
        |b MULTI|b SET tx 1|b INCR tx|b EXEC|a SUBSCRIBE x|b MULTI|b SET tx 1|b PUBLISH x between|b INCR tx|b EXEC|a UNSUBSCRIBE x|b EVAL return~redis.call('set',KEYS[1],'1') 1 k|b SWAPDB 0 1|b SWAPDB 0 1|b FLUSHDB\
        |b MULTI|b SET k v PXAT 1|b TOUCH k|b EXEC|b SELECT 2|b SET k v|b CONFIG SET notify-keyspace-events El|b SET k w|b RPUSH q 1|b CONFIG SET notify-keyspace-events K$|b SET k x|b CONFIG SET notify-keyspace-events AE|b RPUSH q 2\
        |b CONFIG GET notify-keyspace-events|b CONFIG SET notify-keyspace-events ~|b CONFIG SET notify-keyspace-events KEn|b SET fresh v|b SET fresh v|b RPUSH fresh2 1|b CONFIG SET notify-keyspace-events KEAm|b GET nothing|b GET fresh",
    );
}

#[test]
fn events_of_keys_whose_time_has_come_or_that_made_room_are_heard() {
    let server = Server::anteroom(&[]);
    let (mut listener, mut client) = (server.client(), server.client());
    client.run("CONFIG SET notify-keyspace-events Exe");
    listener.run("PSUBSCRIBE __keyevent@0__:*");
    client.run("SET k v PX 20");
    // Nobody looks at it: the sweep finds it.
    let heard = String::from_utf8(listener.read()).unwrap();
    assert!(heard.ends_with("$22\r\n__keyevent@0__:expired\r\n$1\r\nk\r\n"), "{heard}");
    for index in 0..200 {
        client.run(&format!("SET filler:{index} {}", "x".repeat(20_000)));
    }
    client.run("CONFIG SET maxmemory-policy allkeys-lru maxmemory 1mb");
    client.run("SET more x");
    let heard = listener.frames();
    assert!(heard.len() > 50 && heard.iter().all(|frame| frame.contains("evicted\r\n")), "{}", heard.len());
}

/// Messages of `CLIENT TRACKING` that go to another connection, which speaks RESP2.
#[test]
fn changes_are_told_to_one_that_is_redirected_to_in_resp2() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let hear = |server: &Server| {
        let (mut listener, mut reader, mut writer) = (server.client(), server.client(), server.client());
        let id = listener.run("CLIENT ID");
        let on = format!("CLIENT TRACKING ON REDIRECT {}", id.trim().trim_start_matches(':'));
        let mut heard = vec![reader.run(&on), reader.run("GET k"), writer.run("SET k 1")];
        // Only who listens to something is told.
        heard.push(listener.run("GET k"));
        heard.push(listener.run("SUBSCRIBE __redis__:invalidate"));
        heard.extend([reader.run("MGET k l"), writer.run("MSET k 2 l 3"), reader.run("GET k")]);
        heard.extend(listener.frames());
        heard.push(writer.run("FLUSHALL"));
        heard.extend(listener.frames());
        heard
    };
    assert_eq!(hear(&ours), hear(&theirs));
}

#[test]
fn who_is_gone_or_does_not_listen_is_forgotten() {
    let server = Server::anteroom(&["--threads", "2"]);
    let (mut listener, mut client) = (server.client(), server.client());
    listener.run("SUBSCRIBE a");
    assert!(client.run("CLIENT LIST TYPE pubsub").contains(" flags=P db=0 sub=1 psub=0 ssub=0 "));
    assert!(!client.run("CLIENT LIST TYPE normal").contains("sub=1"));
    assert!(client.run("INFO stats").contains("pubsub_channels:1\r\n"));
    drop(listener);
    wait_for(|| client.run("PUBSUB NUMSUB a") == "*2\r\n$1\r\na\r\n:0\r\n");
    // One that takes nothing of what it hears.
    let mut lazy = server.client();
    lazy.run("PSUBSCRIBE *");
    assert_eq!(
        client.run("CONFIG SET client-output-buffer-limit pubsub~4mb~0~0".replace('~', " ").as_str()),
        "-ERR wrong number of arguments for 'config|set' command\r\n"
    );
    client.send(&words("CONFIG SET client-output-buffer-limit pubsub~4mb~0~0"));
    assert_eq!(client.read(), b"+OK\r\n");
    let text = "x".repeat(1 << 20);
    wait_for(|| client.run(&format!("PUBLISH a {text}")) == ":0\r\n");
    assert_eq!(client.run("PUBSUB NUMPAT"), ":0\r\n");
    assert_eq!(client.run("PING"), "+PONG\r\n");
}

/// Two threads say things on one channel: all who listen hear them in the same order.
#[test]
fn all_hear_the_same_order() {
    let server = Server::anteroom(&["--threads", "2"]);
    let mut listeners: Vec<Client> = (0..4).map(|_| server.client()).collect();
    listeners.iter_mut().for_each(|listener| drop(listener.run("SUBSCRIBE a")));
    std::thread::scope(|scope| {
        for speaker in 0..4 {
            let mut client = server.client();
            scope.spawn(move || {
                for number in 0..500 {
                    assert_eq!(client.run(&format!("PUBLISH a {speaker}-{number}")), ":4\r\n");
                }
            });
        }
    });
    let heard: Vec<Vec<String>> = listeners.iter_mut().map(Client::frames).collect();
    assert_eq!(heard[0].len(), 2000);
    assert!(heard.iter().all(|other| *other == heard[0]));
}

fn wait_for(mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it does not come to be");
}
