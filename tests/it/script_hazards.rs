//! Scripts that run for ever, take all memory or write what they should not: the server goes on.

use std::time::Duration;

use crate::harness::{Client, Server, encode};

const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
const UNKILLABLE: &str = "-UNKILLABLE Sorry the script already executed write commands against the dataset.";

fn server(threads: &str) -> Server {
    let server = Server::anteroom(&["--threads", threads]);
    server.client().run("CONFIG SET busy-reply-threshold 50 script-memory-limit 32mb");
    server
}

fn start(client: &mut Client, script: &str) {
    client.send_raw(&encode(&["EVAL", script, "1", "k"].map(|word| word.as_bytes().to_vec())));
}

fn eval(client: &mut Client, script: &str) -> String {
    start(client, script);
    String::from_utf8_lossy(&client.read()).into_owned()
}

/// Waits until others are told that a script is busy.
fn wait_until_busy(client: &mut Client) {
    let begin = anteroom::clock::monotonic();
    while client.run("GET k") != BUSY {
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody is told");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Loops of all kinds, on one thread only: it is the one that must kill them.
#[test]
fn endless_scripts_are_killed() {
    let server = server("1");
    let (mut looping, mut other) = (server.client(), server.client());
    for script in [
        "while true do end",
        "repeat redis.call('get', KEYS[1]) until false",
        "while true do pcall(function() while true do end end) end",
        "while true do redis.pcall('nosuchcommand') end",
        "table.sort({1, 2, 3}, function() while true do end end)",
        "string.gsub('x', 'x', function() while true do end end)",
        "return string.find(string.rep('a', 200000), string.rep('.-', 30) .. 'b')",
        "setmetatable({}, {__index = function() while true do end end}).x = nil; return setmetatable({}, {__index = function() while true do end end}).x",
        "return coroutine.wrap(function() while true do end end)()",
        "local s = 'x'; while true do s = s:sub(1, 1) .. 'x'; s:find('x') end",
        "while true do loadstring('return 1')() end",
    ] {
        start(&mut looping, script);
        wait_until_busy(&mut other);
        assert_eq!(other.run("PING"), BUSY);
        assert_eq!(other.run("SCRIPT KILL"), "+OK\r\n", "{script}");
        let reply = String::from_utf8_lossy(&looping.read()).into_owned();
        assert!(
            reply.starts_with("-ERR ") && reply.contains("Script killed by user with SCRIPT KILL..."),
            "{script}: {reply}"
        );
        assert_eq!(other.run("PING"), "+PONG\r\n");
        assert_eq!(eval(&mut looping, "return KEYS[1]"), "$1\r\nk\r\n");
    }
    assert_eq!(other.run("SCRIPT KILL"), "-NOTBUSY No scripts in execution right now.\r\n");
}

#[test]
fn a_script_that_has_written_ends_only_with_the_server() {
    let mut server = server("1");
    let (mut looping, mut other) = (server.client(), server.client());
    start(&mut looping, "redis.call('set', KEYS[1], 1); while true do end");
    wait_until_busy(&mut other);
    assert!(other.run("SCRIPT KILL").starts_with(UNKILLABLE));
    assert_eq!(other.run("GET k"), BUSY);
    assert_eq!(other.run("MULTI"), "+OK\r\n");
    assert_eq!(other.run("GET k"), BUSY);
    assert!(other.run("EXEC").starts_with("-EXECABORT Transaction discarded because of: BUSY "));
    other.send_raw(b"SHUTDOWN NOSAVE\r\n");
    assert!(server.wait().success());
}

/// Those on other threads that wait for a lock of the script's are told too, and nothing of theirs is lost.
#[test]
fn who_waits_for_a_lock_is_told() {
    let server = server("4");
    let mut clients: Vec<Client> = (0..12).map(|_| server.client()).collect();
    let mut blocked = server.client();
    blocked.send_raw(b"BLPOP list 1\r\n");
    while !clients[0].run("INFO clients").contains("blocked_clients:1\r\n") {}
    let mut watching = server.client();
    assert_eq!(watching.run("WATCH k"), "+OK\r\n");
    let mut looping = server.client();
    start(&mut looping, "redis.call('get', 'k'); while true do end");
    for client in &mut clients {
        client.send_raw(b"SET k v\r\n");
    }
    for client in &mut clients {
        let reply = String::from_utf8_lossy(&client.read()).into_owned();
        assert!(reply == BUSY || reply == "+OK\r\n", "{reply}");
        wait_until_busy(client);
    }
    assert_eq!(String::from_utf8_lossy(&blocked.read()), "*-1\r\n");
    drop(watching);
    assert_eq!(clients[0].run("DBSIZE"), BUSY);
    assert_eq!(clients[1].run("SCRIPT KILL"), "+OK\r\n");
    assert!(looping.read().starts_with(b"-ERR "));
    for client in &mut clients {
        assert_eq!(client.run("SET k v"), "+OK\r\n");
    }
    // The wait that ended meanwhile takes nothing from the list.
    clients[0].run("RPUSH list a");
    assert_eq!(clients[1].run("LLEN list"), ":1\r\n");
}

#[test]
fn the_client_of_an_endless_script_may_leave() {
    let server = server("1");
    let mut other = server.client();
    let mut looping = server.client();
    start(&mut looping, "while true do end");
    wait_until_busy(&mut other);
    drop(looping);
    assert_eq!(other.run("GET k"), BUSY);
    assert_eq!(other.run("SCRIPT KILL"), "+OK\r\n");
    let begin = anteroom::clock::monotonic();
    while other.run("GET k") == BUSY {
        assert!(begin.elapsed() < Duration::from_secs(20), "it does not end");
    }
    assert_eq!(eval(&mut other, "return 1"), ":1\r\n");
}

#[test]
fn a_long_script_that_ends_by_itself_gets_its_reply() {
    let server = server("1");
    let (mut long, mut other) = (server.client(), server.client());
    start(
        &mut long,
        "local n = 0; for i = 1, ARGV[1] or 20000000 do n = n + i % 3 end; redis.call('set', KEYS[1], n); return n",
    );
    let mut was_busy = false;
    while other.run("EXISTS k") != ":1\r\n" {
        was_busy |= other.run("PING") == BUSY;
    }
    assert!(was_busy);
    assert_eq!(long.read()[0], b':');
}

#[test]
fn memory_and_stack_are_bounded_and_the_machine_usable_after() {
    let server = server("1");
    let mut client = server.client();
    client.run("CONFIG SET busy-reply-threshold 60000");
    for (script, expected) in [
        ("local t = {}; while true do t[#t + 1] = string.rep('x', 100000) .. #t end", "not enough memory"),
        ("local s = 'x'; while true do s = s .. s end", "not enough memory"),
        ("return string.rep('x', 2^40)", ""),
        ("return string.rep('x', 1e9)", "not enough memory"),
        ("return string.rep(string.rep('x', 1000), 1e6)", ""),
        ("return ('x'):rep(2^31)", ""),
        ("local function f() return 1 + f() end; return f()", "stack overflow"),
        ("local function f() return pcall(f) end; return f()", ""),
        ("local t = {}; for i = 1, 1e7 do t = {t} end; return t", ""),
        ("return string.format('%99999d', 1)", ""),
        ("return table.concat({}, 'x', 1, 1e9)", ""),
        ("return {unpack({}, 1, 1e8)}", ""),
        ("return {unpack({}, -2147483648, 2147483647)}", ""),
        ("return redis.call('set', 'big', string.rep('x', 1e9))", "not enough memory"),
        ("return cjson.decode(string.rep('[', 100000))", "nested data structures"),
        ("return cmsgpack.unpack(string.rep('\\145', 100000))", ""),
        ("return setmetatable({}, {__tostring = 1})", ""),
        ("return {string.find(string.rep('(', 300), string.rep('(', 300))}", ""),
        ("return newproxy(true)", ""),
        ("return getfenv(0)", ""),
        ("getfenv(0).x = 1", "readonly"),
        ("getmetatable('').__index.x = 1", "readonly"),
        ("return rawset(_G, 'x', 1)", "readonly"),
        ("getmetatable(_G).__index = nil", "readonly"),
        ("return setfenv(1, {})", ""),
        ("return loadstring('\\27Lua')", ""),
    ] {
        let reply = eval(&mut client, script);
        assert!(reply.contains(expected), "{script}: {reply}");
        assert_eq!(
            eval(&mut client, "return {1, 'two', cjson.encode({3})}"),
            "*3\r\n:1\r\n$3\r\ntwo\r\n$3\r\n[3]\r\n"
        );
    }
    assert_eq!(client.run("PING"), "+PONG\r\n");
    let info = client.run("INFO stats");
    assert!(info.contains("command_panics:0\r\n"), "{info}");
}

#[test]
fn replies_cannot_be_forged() {
    let server = server("1");
    let mut client = server.client();
    for script in [
        "return {err = 'x\\r\\n+OK\\r\\n'}",
        "return {ok = 'x\\r\\n+OK\\r\\n'}",
        "return redis.error_reply('x\\r\\n+OK\\r\\n')",
        "error('x\\r\\n+OK\\r\\n')",
        "error({err = 'x\\r\\n+OK\\r\\n'})",
        "return redis.call('x\\r\\n+OK\\r\\n')",
        "redis.setresp(3); return {big_number = '1\\r\\n+OK\\r\\n'}",
        "return {verbatim_string = {format = 'a\\r\\n', string = 'x'}}",
        "return nosuch_global_x and 1",
    ] {
        for protocol in ["2", "3"] {
            client.run(&format!("HELLO {protocol}"));
            eval(&mut client, script);
            assert_eq!(client.run("ECHO next"), "$4\r\nnext\r\n", "{script}");
        }
    }
}

/// In a transaction a script is not set aside, but it can be killed from another thread.
#[test]
fn an_endless_script_in_a_transaction_is_killed_from_another_thread() {
    let server = server("4");
    let mut others: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let mut looping = server.client();
    looping.run("MULTI");
    assert_eq!(eval(&mut looping, "while true do end"), "+QUEUED\r\n");
    looping.send_raw(b"EXEC\r\n");
    wait_until_busy(&mut others[0]);
    assert_eq!(others[1].run("SCRIPT KILL"), "+OK\r\n");
    assert!(looping.read().starts_with(b"*1\r\n-ERR "));
    assert_eq!(others[2].run("SET k 1"), "+OK\r\n");
}
