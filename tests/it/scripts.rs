//! Scripts: the same ones to Anteroom and to `redis-server`, whose replies must be the same bytes.

use crate::harness::{Client, Server, encode};

/// Scripts with their keys and arguments; each is run in RESP2 and RESP3.
const SAME: &[(&str, &[&str], &[&str])] = &[
    ("return 1", &[], &[]),
    ("return 3.99", &[], &[]),
    ("return -3.99", &[], &[]),
    ("return 2^53", &[], &[]),
    ("return 1e300", &[], &[]),
    ("return 0/0", &[], &[]),
    ("return nil", &[], &[]),
    ("return true", &[], &[]),
    ("return false", &[], &[]),
    ("return 'text'", &[], &[]),
    ("return ''", &[], &[]),
    ("return {}", &[], &[]),
    ("return {1, 2, {3, 'x', {}}, nil, 5}", &[], &[]),
    ("return {1, false, true, 'x'}", &[], &[]),
    ("return {ok='fine'}", &[], &[]),
    ("return {err='ERR bad'}", &[], &[]),
    ("return {err='MY bad\\r\\n+injected'}", &[], &[]),
    ("return {ok='fine\\r\\n+injected'}", &[], &[]),
    ("return {double=3.25}", &[], &[]),
    ("return {big_number='12345678901234567890'}", &[], &[]),
    ("return {verbatim_string={format='txt', string='hello'}}", &[], &[]),
    ("return {map={a=1}}", &[], &[]),
    ("return {set={a=true}}", &[], &[]),
    ("return {KEYS, ARGV, #KEYS, #ARGV}", &["k1", "k2"], &["a", "b", "c"]),
    ("return {KEYS[1], ARGV[1]}", &["other"], &["than before"]),
    ("return redis.call('set', KEYS[1], ARGV[1])", &["k"], &["v"]),
    ("return redis.call('get', KEYS[1])", &["k"], &[]),
    ("return redis.call('get', 'absent')", &[], &[]),
    ("return redis.call('incrby', 'n', 5)", &[], &[]),
    ("return redis.call('incrby', 'n', 5.0)", &[], &[]),
    ("return redis.call('incrby', 'n', '5x')", &[], &[]),
    ("return redis.pcall('incrby', 'n', '5x')", &[], &[]),
    ("return redis.call('nosuchcommand')", &[], &[]),
    ("return redis.call('get')", &[], &[]),
    ("return redis.call()", &[], &[]),
    ("return redis.call({})", &[], &[]),
    ("return redis.pcall('get', true)", &[], &[]),
    ("return redis.call('multi')", &[], &[]),
    ("return redis.call('eval', 'return 1', 0)", &[], &[]),
    ("return redis.call('rpush', 'l', 1, 2, 3)", &[], &[]),
    ("return redis.call('lrange', 'l', 0, -1)", &[], &[]),
    ("return redis.call('lpush', 'k', 1)", &[], &[]),
    ("return {pcall(redis.call, 'lpush', 'k', 1)}", &[], &[]),
    ("local r = redis.pcall('lpush', 'k', 1); return {type(r), r.err}", &[], &[]),
    ("redis.call('hset', 'h', 'f', 'v'); redis.setresp(3); return redis.call('hgetall', 'h')", &[], &[]),
    ("redis.setresp(3); return redis.call('hgetall', 'h').map.f", &[], &[]),
    ("redis.setresp(3); redis.call('sadd', 's', 'x'); return redis.call('smembers', 's')", &[], &[]),
    ("redis.setresp(3); redis.call('zadd', 'z', 1.5, 'x'); return redis.call('zscore', 'z', 'x')", &[], &[]),
    ("redis.setresp(3); return redis.call('zscore', 'z', 'x').double", &[], &[]),
    ("redis.setresp(3); return redis.call('get', 'absent')", &[], &[]),
    ("redis.setresp(3); return {redis.call('get', 'absent') == nil, true, false}", &[], &[]),
    ("redis.setresp(3); return true", &[], &[]),
    ("redis.setresp(4)", &[], &[]),
    ("redis.setresp()", &[], &[]),
    ("redis.setresp(3); return redis.call('zrange', 'z', 0, -1, 'withscores')", &[], &[]),
    ("return redis.call('zrange', 'z', 0, -1, 'withscores')", &[], &[]),
    ("return redis.error_reply('MY text')", &[], &[]),
    ("return redis.error_reply('text')", &[], &[]),
    ("return redis.error_reply('-MY text')", &[], &[]),
    ("return redis.error_reply(1)", &[], &[]),
    ("return redis.status_reply('text')", &[], &[]),
    ("return redis.status_reply()", &[], &[]),
    ("return redis.sha1hex('')", &[], &[]),
    ("return redis.sha1hex()", &[], &[]),
    ("return redis.log(redis.LOG_DEBUG, 'a', 'b')", &[], &[]),
    ("return redis.log(9, 'a')", &[], &[]),
    ("return redis.log('x', 'a')", &[], &[]),
    ("return redis.log(1)", &[], &[]),
    (
        "return {redis.LOG_WARNING, redis.REPL_ALL, redis.REPL_SLAVE, redis.breakpoint(), redis.replicate_commands()}",
        &[],
        &[],
    ),
    ("redis.set_repl(redis.REPL_NONE); return 1", &[], &[]),
    ("redis.set_repl(77)", &[], &[]),
    ("return redis.acl_check_cmd('set', 'x', 1)", &[], &[]),
    ("return redis.acl_check_cmd('nosuch')", &[], &[]),
    ("error('plain')", &[], &[]),
    ("\n\nerror('third line')", &[], &[]),
    ("error({err='TABLE text'})", &[], &[]),
    ("error({err='TABLE text', other=1})", &[], &[]),
    ("local function f() redis.call('nosuchcommand') end\nf()", &[], &[]),
    ("return nosuchglobal", &[], &[]),
    ("newglobal = 1", &[], &[]),
    ("redis.call = 1", &[], &[]),
    ("string.new = 1", &[], &[]),
    ("setmetatable(_G, {})", &[], &[]),
    ("return {pcall(function() newglobal = 1 end)}", &[], &[]),
    ("return {pcall(error, 'x')}", &[], &[]),
    ("return {pcall(error, {err='x'})}", &[], &[]),
    ("return {pcall(error)}", &[], &[]),
    ("return {select('#', pcall(function() return 1, 2, 3 end))}", &[], &[]),
    ("return print", &[], &[]),
    ("return os", &[], &[]),
    ("return require", &[], &[]),
    ("return debug", &[], &[]),
    (
        "return {tostring(1/3), tostring(1e15), tostring(2^53), tostring(100), tostring(-0.5), tostring(1e100)}",
        &[],
        &[],
    ),
    ("return {1/3 .. '', 2^53 .. '', 1e14 .. '', 1e15 .. '', 0.1 .. '', 12 .. ''}", &[], &[]),
    ("return string.format('%d %s %5.2f %x %q', 3, 1/3, 2.5, 255, 'a\\n')", &[], &[]),
    ("return table.concat({1, 2.5, 'x', 1/3}, ',')", &[], &[]),
    ("return {tonumber('0x10'), tonumber('1e3'), tonumber('z', 36), tonumber(''), tonumber('5 ')}", &[], &[]),
    ("return {unpack({1, 2, 3})}", &[], &[]),
    ("return {table.getn({1, 2}), #'abc', select('#', 1, nil)}", &[], &[]),
    ("return {loadstring('return 7')()}", &[], &[]),
    ("return type(loadstring('return ('))", &[], &[]),
    (
        "return {math.floor(2.7), math.ceil(2.1), math.max(1, 5), math.fmod(7, 3), 7 % -3, math.mod(7, 3)}",
        &[],
        &[],
    ),
    ("math.randomseed(10); return {math.random(1000), math.random(1000), math.random(5, 50)}", &[], &[]),
    ("math.randomseed(-3); return tostring(math.random())", &[], &[]),
    ("local t = {}; for w in string.gmatch('one two', '%a+') do t[#t + 1] = w end; return t", &[], &[]),
    ("return {string.find('hello', 'l+'), string.gsub('hello', 'l', 'L'), string.rep('ab', 3)}", &[], &[]),
    ("return cjson.encode({1, 2, 3})", &[], &[]),
    ("return cjson.encode({})", &[], &[]),
    ("return cjson.encode({a={b={1, 'x', true, cjson.null}}})", &[], &[]),
    ("return cjson.encode({0.1, 1e20, 2^53, 1/3, -5, 100})", &[], &[]),
    ("return cjson.encode('\\0\\1\"\\\\/\\n\\127\\200')", &[], &[]),
    ("return cjson.encode({[1]=1, [2]=2, [4]=4})", &[], &[]),
    ("return cjson.encode({[1]=1, [100]=2})", &[], &[]),
    ("return cjson.encode(function() end)", &[], &[]),
    ("return cjson.encode(0/0)", &[], &[]),
    ("return cjson.encode()", &[], &[]),
    ("local t = {}; t[1] = t; return cjson.encode(t)", &[], &[]),
    (
        "local t = cjson.decode(ARGV[1]); return {t.a, t.b[2], tostring(t.c), tostring(t.d == cjson.null), t.e}",
        &[],
        &["{\"a\":1,\"b\":[1,2.5],\"c\":true,\"d\":null,\"e\":\"\\u00e9\\ud83d\\ude00\\n\"}"],
    ),
    ("return cjson.decode(ARGV[1])", &[], &["[0.0, -5e3, -1, 0x20]"]),
    ("return cjson.decode(ARGV[1])", &[], &["{\"a\":"]),
    ("return cjson.decode(ARGV[1])", &[], &["[1,]"]),
    ("return cjson.decode(ARGV[1])", &[], &["\"abc"]),
    ("return cjson.decode(ARGV[1])", &[], &["\"\\x\""]),
    ("return cjson.decode(ARGV[1])", &[], &["nope"]),
    ("return cjson.decode(ARGV[1])", &[], &["[1] 2"]),
    ("return cjson.decode('')", &[], &[]),
    (
        "return {cjson.encode_max_depth(), cjson.decode_max_depth(), cjson.encode_number_precision()}",
        &[],
        &[],
    ),
    ("return cmsgpack.pack({1, 2, 3}, 'x', -33, 300, 70000, 2^40, 1.5, 0.1, true, false)", &[], &[]),
    ("return cmsgpack.pack({a=1})", &[], &[]),
    ("return cmsgpack.pack(string.rep('x', 40), string.rep('y', 300))", &[], &[]),
    (
        "return cmsgpack.pack(-1, -32, -128, -129, -32768, -32769, -2^31, -2^31 - 1, 127, 128, 255, 256, 65535, 65536, 2^32)",
        &[],
        &[],
    ),
    ("return cmsgpack.pack()", &[], &[]),
    ("return {cmsgpack.unpack(cmsgpack.pack(1, 'two', {3, 4}, nil, -5, 1.5))}", &[], &[]),
    ("return {cmsgpack.unpack_one(cmsgpack.pack(1, 2, 3))}", &[], &[]),
    ("return {cmsgpack.unpack_limit(cmsgpack.pack(1, 2, 3), 2)}", &[], &[]),
    ("return {cmsgpack.unpack_one(cmsgpack.pack(1), 0)}", &[], &[]),
    ("return {cmsgpack.unpack_one('x', 9)}", &[], &[]),
    ("return {cmsgpack.unpack('\\217')}", &[], &[]),
    ("return {cmsgpack.unpack('\\193')}", &[], &[]),
    ("return {cmsgpack.unpack('')}", &[], &[]),
    ("return struct.pack('>I2hsBi8', 1, -2, 'ab', 255, -3)", &[], &[]),
    ("return struct.pack('<!4bIfd', 1, 2, 1.5, -0.25)", &[], &[]),
    ("return {struct.unpack('>I2hsBi8', struct.pack('>I2hsBi8', 1, -2, 'ab', 255, -3))}", &[], &[]),
    ("return {struct.unpack('Bc0', '\\3abcdef')}", &[], &[]),
    ("return {struct.unpack('I4', 'ab')}", &[], &[]),
    ("return struct.size('>I2hBi8!8d')", &[], &[]),
    ("return struct.size('s')", &[], &[]),
    ("return struct.pack('?')", &[], &[]),
    ("return struct.pack('i40', 1)", &[], &[]),
    (
        "return {bit.tobit(2^32 + 5), bit.band(7, 12), bit.bor(1, 8), bit.bxor(5, 1), bit.bnot(0), bit.lshift(1, 31), bit.rshift(-1, 28), bit.arshift(-8, 1), bit.rol(0x12345678, 8), bit.bswap(1)}",
        &[],
        &[],
    ),
    ("return {bit.tohex(255), bit.tohex(255, 4), bit.tohex(-1, -8)}", &[], &[]),
    ("return bit.band()", &[], &[]),
    ("redis.call('select', 3); redis.call('set', 'in3', 1); return redis.call('dbsize')", &[], &[]),
    ("return redis.call('exists', 'in3')", &[], &[]),
    ("return redis.call('getrange', 'k', 0, 100)", &[], &[]),
    ("#!lua\nreturn 1", &[], &[]),
    ("#!lua flags=no-writes\nreturn redis.call('set', 'k', 1)", &[], &[]),
    ("#!lua flags=no-writes,allow-oom\nreturn 2", &[], &[]),
    ("#!lua flags=wrong\nreturn 1", &[], &[]),
    ("#!lua name=x\nreturn 1", &[], &[]),
    ("#!python\nreturn 1", &[], &[]),
    ("#!lua", &[], &[]),
];

fn eval(name: &str, script: &str, keys: &[&str], arguments: &[&str]) -> Vec<Vec<u8>> {
    let count = keys.len().to_string();
    let words =
        [name, script, &count].into_iter().chain(keys.iter().copied()).chain(arguments.iter().copied());
    words.map(|word| word.as_bytes().to_vec()).collect()
}

fn ask(client: &mut Client, command: &[Vec<u8>]) -> String {
    client.send_raw(&encode(command));
    String::from_utf8_lossy(&client.read()).into_owned()
}

#[test]
fn replies_are_those_of_redis() {
    let (our_server, their_server) = (Server::anteroom(&[]), Server::redis());
    let mut faults = Vec::new();
    for protocol in ["2", "3"] {
        let (mut ours, mut theirs) = (our_server.client(), their_server.client());
        for client in [&mut ours, &mut theirs] {
            client.run(&format!("HELLO {protocol}"));
            client.run("FLUSHALL");
        }
        for name in ["EVAL", "EVAL_RO"] {
            for (script, keys, arguments) in SAME {
                let command = eval(name, script, keys, arguments);
                let (our_reply, their_reply) = (ask(&mut ours, &command), ask(&mut theirs, &command));
                if our_reply != their_reply {
                    faults.push(format!(
                        "{name}, RESP{protocol}: {script}\n  ours   {our_reply:?}\n  theirs {their_reply:?}"
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn digests_stand_for_scripts_on_every_thread() {
    let server = Server::anteroom(&["--threads", "2"]);
    let (mut one, mut other) = (server.client(), server.client());
    let digest = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let unknown = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
    assert_eq!(one.run(&format!("EVALSHA {digest} 0")), unknown);
    assert_eq!(one.run("EVALSHA tooshort 0"), unknown);
    assert_eq!(ask(&mut one, &eval("EVAL", "return 1", &[], &[])), ":1\r\n");
    let load = ["SCRIPT", "LOAD", "return 1"].map(|word| word.as_bytes().to_vec());
    assert_eq!(ask(&mut one, &load), format!("$40\r\n{digest}\r\n"));
    assert_eq!(ask(&mut other, &eval("EVALSHA", digest, &[], &[])), ":1\r\n");
    assert_eq!(ask(&mut other, &eval("EVALSHA", &digest.to_uppercase(), &[], &[])), ":1\r\n");
    assert_eq!(one.run(&format!("SCRIPT EXISTS {digest} nothing")), "*2\r\n:1\r\n:0\r\n");
    assert_eq!(one.run("SCRIPT FLUSH ASYNC"), "+OK\r\n");
    assert_eq!(other.run(&format!("EVALSHA {digest} 0")), unknown);
    assert_eq!(one.run(&format!("EVALSHA {digest} 0")), unknown);
    assert_eq!(one.run("SCRIPT FLUSH now"), "-ERR SCRIPT FLUSH only support SYNC|ASYNC option\r\n");
    assert_eq!(one.run("SCRIPT KILL"), "-NOTBUSY No scripts in execution right now.\r\n");
    assert!(one.run("EVAL return").starts_with("-ERR wrong number of arguments"));
    for (count, expected) in [
        ("x", "-ERR value is not an integer or out of range\r\n"),
        ("-1", "-ERR Number of keys can't be negative\r\n"),
        ("1", "-ERR Number of keys can't be greater than number of args\r\n"),
    ] {
        assert_eq!(one.run(&format!("EVAL return {count}")), expected);
    }
}

/// As in 7.2; Redis 7.0 refuses such commands in scripts.
#[test]
fn commands_that_block_do_not_wait_in_scripts() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    assert_eq!(
        ask(&mut client, &eval("EVAL", "return redis.call('blpop', KEYS[1], 0)", &["k"], &[])),
        "$-1\r\n"
    );
    client.run("RPUSH k a");
    assert_eq!(
        ask(&mut client, &eval("EVAL", "return redis.call('blpop', KEYS[1], 0)", &["k"], &[])),
        "*2\r\n$1\r\nk\r\n$1\r\na\r\n"
    );
}

#[test]
fn a_script_is_atomic_and_runs_within_a_transaction() {
    let server = Server::anteroom(&["--threads", "2"]);
    let increment =
        "local n = tonumber(redis.call('get', KEYS[1]) or '0'); redis.call('set', KEYS[1], n + 1); return n";
    let each = 2_000;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.client();
                let command = encode(&eval("EVAL", increment, &["counter"], &[]));
                for _ in 0..each / 100 {
                    client.send_raw(&command.repeat(100));
                    (0..100).for_each(|_| assert_eq!(client.read()[0], b':'));
                }
            });
        }
    });
    let mut client = server.client();
    assert_eq!(client.run("GET counter"), "$4\r\n8000\r\n");
    assert_eq!(client.run("MULTI"), "+OK\r\n");
    client.run("INCR counter");
    assert_eq!(ask(&mut client, &eval("EVAL", increment, &["counter"], &[])), "+QUEUED\r\n");
    assert_eq!(ask(&mut client, &eval("EVAL", "return nosuch", &[], &[])), "+QUEUED\r\n");
    let reply = client.run("EXEC");
    assert!(reply.starts_with("*3\r\n:8001\r\n:8001\r\n-ERR user_script:1: Script attempted"), "{reply}");
    assert_eq!(client.run("GET counter"), "$4\r\n8002\r\n");
}

#[test]
fn rate_limits_can_be_asked_and_time_stands_still() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let take = "return redis.call('ratelimit.take', KEYS[1], 2, 60000)[1]";
    let refused = [(); 4].map(|()| ask(&mut client, &eval("EVAL", take, &["limit"], &[])));
    assert_eq!(refused, [":0\r\n", ":0\r\n", ":1\r\n", ":1\r\n"]);
    let clock = "local first = redis.call('time') for i = 1, 100000 do end local last = redis.call('time') \
        return first[1] == last[1] and first[2] == last[2]";
    assert_eq!(ask(&mut client, &eval("EVAL", clock, &[], &[])), ":1\r\n");
}
