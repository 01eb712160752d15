//! Functions: the same commands to Anteroom and to `redis-server`, whose replies must be the same bytes.

use crate::harness::{Client, Server, encode};

const LIBRARY: &str = "#!lua name=lib\n\
    local function add(keys, args) return redis.call('incrby', keys[1], args[1]) end\n\
    redis.register_function('add', add)\n\
    redis.register_function{function_name='peek', callback=function(keys) return redis.call('get', keys[1]) end, \
        flags={'no-writes'}, description='looks'}\n";

fn words<'a>(list: &[&'a str]) -> Vec<&'a str> {
    list.to_vec()
}

/// Commands, in order.
fn commands() -> Vec<Vec<&'static str>> {
    let load = |code: &'static str| words(&["FUNCTION", "LOAD", code]);
    let mut all = vec![
        words(&["FUNCTION", "FLUSH"]),
        load(LIBRARY),
        load(LIBRARY),
        words(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]),
        words(&["FUNCTION", "LOAD", "OTHER", LIBRARY]),
        words(&["FCALL", "add", "1", "n", "5"]),
        words(&["FCALL", "ADD", "1", "n", "5"]),
        words(&["FCALL", "peek", "1", "n"]),
        words(&["FCALL_RO", "peek", "1", "n"]),
        words(&["FCALL_RO", "add", "1", "n", "1"]),
        words(&["FCALL", "nothing", "0"]),
        words(&["FCALL", "add", "x"]),
        words(&["FCALL", "add", "2", "n"]),
        words(&["FCALL", "add", "-1"]),
        words(&["FCALL", "add", "0"]),
        words(&["FCALL", "add", "1", "n", "x"]),
        words(&["FUNCTION", "LIST", "LIBRARYNAME", "nothing*"]),
        words(&["FUNCTION", "LIST", "LIBRARYNAME"]),
        words(&["FUNCTION", "LIST", "OTHER"]),
        words(&["FUNCTION", "STATS"]),
        words(&["FUNCTION", "DUMP"]),
        words(&["FUNCTION", "KILL"]),
        words(&["FUNCTION", "DELETE", "nothing"]),
        words(&["FUNCTION", "DELETE", "lib"]),
        words(&["FCALL", "add", "1", "n", "5"]),
        words(&["FUNCTION", "FLUSH", "SYNC"]),
        words(&["FUNCTION", "FLUSH", "NOW"]),
        words(&["FUNCTION", "RESTORE", "short"]),
        words(&["FUNCTION", "RESTORE", "much longer than a footer is"]),
        words(&["FUNCTION", "RESTORE", "x", "NOPOLICY"]),
    ];
    for code in [
        "no shebang",
        "#!lua",
        "#!lua\nreturn 1",
        "#!lua name=a name=b\n",
        "#!lua other=a\n",
        "#!lua name=\n",
        "#!lua name=a-b\n",
        "#!wren name=a\n",
        "#!lua name=a\nreturn 1",
        "#!lua name=a\nreturn nosuch",
        "#!lua name=a\nredis.call('ping')",
        "#!lua name=a\nredis.setresp(3)",
        "#!lua name=a\nnew = 1",
        "#!lua name=a\nredis.register_function()",
        "#!lua name=a\nredis.register_function('f')",
        "#!lua name=a\nredis.register_function('f', 1)",
        "#!lua name=a\nredis.register_function({}, function() end)",
        "#!lua name=a\nredis.register_function('f-g', function() end)",
        "#!lua name=a\nredis.register_function('f', function() end, 1)",
        "#!lua name=a\nredis.register_function('f', function() end) redis.register_function('f', function() end)",
        "#!lua name=a\nredis.register_function{callback=function() end}",
        "#!lua name=a\nredis.register_function{function_name='f'}",
        "#!lua name=a\nredis.register_function{function_name=f, callback=1, other=2}",
        "#!lua name=a\nredis.register_function{function_name='f', callback=function() end, flags={'nosuch'}}",
        "#!lua name=a\nredis.register_function{function_name='f', callback=function() end, flags='no-writes'}",
        "#!lua name=a\nredis.register_function{function_name='f', callback=function() end, flags={'ALLOW-OOM'}}",
    ] {
        all.push(load(code));
        all.push(words(&["FUNCTION", "LIST", "WITHCODE"]));
        all.push(words(&["FUNCTION", "FLUSH"]));
    }
    all.push(load(
        "#!lua name=b\n\
         local state = {n = 0}\n\
         redis.register_function('args', function(keys, args) return {keys, args, #keys} end)\n\
         redis.register_function('fails', function() return redis.call('nosuch') end)\n\
         redis.register_function('raises', function() error('plain') end)\n\
         redis.register_function('missing', function() return nosuch end)\n\
         redis.register_function('late', function() return type(redis.register_function) end)\n\
         redis.register_function('globals', function() new = 1 end)\n\
         redis.register_function('writes', function(keys) return redis.call('set', keys[1], 'x') end)\n\
         redis.register_function('counts', function() state.n = state.n + 1; return state.n end)\n\
         redis.register_function('keysglobal', function() return KEYS end)\n\
         redis.register_function('json', function(_, args) return cjson.encode(cjson.decode(args[1])) end)\n\
         redis.register_function('three', function() redis.setresp(3); return redis.call('hgetall', 'nohash') end)",
    ));
    for function in [
        "args",
        "fails",
        "raises",
        "missing",
        "late",
        "globals",
        "writes",
        "counts",
        "counts",
        "keysglobal",
        "json",
        "three",
    ] {
        all.push(words(&["FCALL", function, "1", "k", "[1,{\"a\":2}]"]));
    }
    all.push(words(&["FCALL_RO", "args", "0"]));
    all.push(words(&["GET", "k"]));
    all
}

fn ask(client: &mut Client, command: &[&str]) -> String {
    let command: Vec<Vec<u8>> = command.iter().map(|word| word.as_bytes().to_vec()).collect();
    client.send_raw(&encode(&command));
    String::from_utf8_lossy(&client.read()).into_owned()
}

#[test]
fn replies_are_those_of_redis() {
    let (our_server, their_server) = (Server::anteroom(&["--threads", "1"]), Server::redis());
    let mut faults = Vec::new();
    for protocol in ["2", "3"] {
        let (mut ours, mut theirs) = (our_server.client(), their_server.client());
        for client in [&mut ours, &mut theirs] {
            client.run(&format!("HELLO {protocol}"));
            client.run("FLUSHALL");
        }
        for command in commands() {
            let (our_reply, their_reply) = (ask(&mut ours, &command), ask(&mut theirs, &command));
            // The version of the format in a dump, and its checksum, are those of 7.2.
            if our_reply != their_reply && command[1] != "DUMP" {
                faults.push(format!(
                    "RESP{protocol}: {command:?}\n  ours   {our_reply:?}\n  theirs {their_reply:?}"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn libraries_are_known_on_every_thread_and_go_from_all() {
    let server = Server::anteroom(&["--threads", "3"]);
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    assert_eq!(ask(&mut clients[0], &["FUNCTION", "LOAD", LIBRARY]), "$3\r\nlib\r\n");
    for (count, client) in clients.iter_mut().enumerate() {
        assert_eq!(ask(client, &["FCALL", "add", "1", "n", "1"]), format!(":{}\r\n", count + 1));
    }
    let other = LIBRARY.replace("'incrby'", "'decrby'");
    assert_eq!(ask(&mut clients[1], &["FUNCTION", "LOAD", "REPLACE", &other]), "$3\r\nlib\r\n");
    for (count, client) in clients.iter_mut().enumerate() {
        assert_eq!(ask(client, &["FCALL", "add", "1", "n", "1"]), format!(":{}\r\n", 2 - count));
    }
    assert_eq!(ask(&mut clients[2], &["FUNCTION", "DELETE", "lib"]), "+OK\r\n");
    for client in &mut clients {
        assert_eq!(ask(client, &["FCALL", "add", "1", "n", "1"]), "-ERR Function not found\r\n");
    }
}

#[test]
fn a_dump_is_restored() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    ask(&mut client, &["FUNCTION", "LOAD", LIBRARY]);
    client.run("FUNCTION DUMP");
    let dump = {
        client.send_raw(b"FUNCTION DUMP\r\n");
        let reply = client.read();
        let start = reply.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        reply[start..reply.len() - 2].to_vec()
    };
    let mut restore = |policy: Option<&str>| {
        let mut command: Vec<Vec<u8>> = vec![b"FUNCTION".to_vec(), b"RESTORE".to_vec(), dump.clone()];
        command.extend(policy.map(|policy| policy.as_bytes().to_vec()));
        client.send_raw(&encode(&command));
        String::from_utf8_lossy(&client.read()).into_owned()
    };
    assert_eq!(restore(None), "-ERR Library lib already exists\r\n");
    assert_eq!(restore(Some("REPLACE")), "+OK\r\n");
    assert_eq!(restore(Some("FLUSH")), "+OK\r\n");
    assert_eq!(client.run("FCALL add 1 n 2"), ":2\r\n");
}

#[test]
fn endless_functions_are_killed_and_endless_libraries_refused() {
    let server = Server::anteroom(&["--threads", "1"]);
    let (mut looping, mut other) = (server.client(), server.client());
    other.run("CONFIG SET busy-reply-threshold 50");
    let code = "#!lua name=loops\nredis.register_function('loop', function() while true do end end)";
    ask(&mut other, &["FUNCTION", "LOAD", code]);
    looping.send_raw(b"FCALL loop 0\r\n");
    let busy =
        "-BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.\r\n";
    while other.run("PING") != busy {}
    let stats = other.run("FUNCTION STATS");
    assert!(stats.contains("running_script\r\n*6\r\n$4\r\nname\r\n$4\r\nloop\r\n"), "{stats}");
    assert_eq!(other.run("SCRIPT KILL"), busy);
    assert_eq!(other.run("FUNCTION KILL"), "+OK\r\n");
    assert!(String::from_utf8_lossy(&looping.read()).contains("Script killed by user with SCRIPT KILL..."));
    assert_eq!(
        ask(&mut other, &["FUNCTION", "LOAD", "#!lua name=never\nwhile true do end"]),
        "-ERR Error registering functions: ERR FUNCTION LOAD timeout\r\n"
    );
    assert_eq!(other.run("PING"), "+PONG\r\n");
}
