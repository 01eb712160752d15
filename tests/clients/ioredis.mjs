// ioredis in ordinary use: pipelines, transactions with WATCH, publish and subscribe, scripts, blocking pops, streams.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";

const [port, upstreamPort] = process.argv.slice(2).map(Number);
const open = (options = {}) => new Redis({ port, host: "127.0.0.1", maxRetriesPerRequest: 3, ...options });
const redis = open();
const direct = new Redis({ port: upstreamPort, host: "127.0.0.1" });

async function until(what, isSo) {
  for (let attempt = 0; attempt < 2000; attempt += 1) {
    if (await isSo()) return;
    await sleep(5);
  }
  throw new Error(`never: ${what}`);
}

// Values of every kind, and what others change.
await redis.set("k", "v", "EX", 100);
assert.equal(await redis.get("k"), "v");
assert.equal(await redis.get("k"), "v");
await direct.set("k", "w");
await until("the change is heard of", async () => (await redis.get("k")) === "w");
assert.deepEqual(await redis.mget("k", "none"), ["w", null]);
await redis.hset("h", { a: "1", b: "2" });
assert.deepEqual(await redis.hgetall("h"), { a: "1", b: "2" });
assert.deepEqual(await redis.hgetall("none"), {});
await redis.zadd("z", 1, "one", 2, "two");
assert.deepEqual(await redis.zrange("z", 0, -1, "WITHSCORES"), ["one", "1", "two", "2"]);
const bytes = Buffer.from([0, 255, 13, 10, 128]);
await redis.set("bytes", bytes);
assert.deepEqual(await redis.getBuffer("bytes"), bytes);
await assert.rejects(redis.incr("h"), /WRONGTYPE/);
await assert.rejects(redis.call("NOSUCH"), /unknown command/);

// Pipelines: in their order, errors in their places.
const pipeline = redis.pipeline();
for (let index = 0; index < 500; index += 1) pipeline.set(`p:${index}`, index).get(`p:${index}`);
pipeline.incr("h").get("p:7");
const results = await pipeline.exec();
assert.equal(results.length, 1002);
for (let index = 0; index < 500; index += 1) assert.deepEqual(results[index * 2 + 1], [null, String(index)]);
assert.match(results[1000][0].message, /WRONGTYPE/);
assert.deepEqual(results[1001], [null, "7"]);
const automatic = open({ enableAutoPipelining: true });
const numbers = await Promise.all(Array.from({ length: 200 }, (_, index) => automatic.get(`p:${index}`)));
assert.deepEqual(numbers, Array.from({ length: 200 }, (_, index) => String(index)));

// Transactions, and those that somebody overtakes.
assert.deepEqual(await redis.multi().set("t", "1").incr("t").get("t").exec(), [
  [null, "OK"],
  [null, 2],
  [null, "2"],
]);
async function add(client, key) {
  for (;;) {
    await client.watch(key);
    const value = Number((await client.get(key)) ?? 0);
    const done = await client.multi().set(key, value + 1).exec();
    if (done !== null) return;
  }
}
const adders = Array.from({ length: 5 }, () => open());
await Promise.all(adders.map(async (client) => {
  for (let turn = 0; turn < 20; turn += 1) await add(client, "sum");
}));
assert.equal(await redis.get("sum"), "100");
await redis.watch("t");
await direct.set("t", "other");
assert.equal(await redis.multi().set("t", "mine").exec(), null);
assert.equal(await redis.get("t"), "other");
await assert.rejects(redis.multi().set("t", "x").call("NOSUCH").exec(), /EXECABORT/);

// Publish and subscribe, patterns too, from here and from elsewhere.
const subscriber = open();
const heard = [];
subscriber.on("message", (channel, message) => heard.push(`${channel}=${message}`));
subscriber.on("pmessage", (pattern, channel, message) => heard.push(`${pattern}:${channel}=${message}`));
assert.equal(await subscriber.subscribe("news"), 1);
assert.equal(await subscriber.psubscribe("log.*"), 2);
assert.equal(await redis.publish("news", "one"), 1);
await direct.publish("log.a", "two");
await redis.publish("other", "nobody");
await until("messages come", () => heard.length === 2);
assert.deepEqual(heard, ["news=one", "log.*:log.a=two"]);
assert.equal(await subscriber.unsubscribe("news"), 1);
assert.equal(await subscriber.punsubscribe(), 0);
assert.equal(await subscriber.get("k"), "w");

// Scripts by their digests, defined as commands.
redis.defineCommand("addTo", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
assert.equal(await redis.addTo("n", 5), 5);
assert.equal(await redis.get("n"), "5");
assert.equal(await redis.addTo("n", 2), 7);
assert.equal(await redis.get("n"), "7");
await direct.script("FLUSH");
assert.equal(await redis.addTo("n", 1), 8);
assert.deepEqual(await redis.pipeline().addTo("n", 1).get("n").exec(), [
  [null, 9],
  [null, "9"],
]);

// Blocking pops, which keep nobody else waiting, and end when their time is up.
const blocked = open();
const popped = blocked.blpop("queue", 10);
await until("it waits", async () => /blocked_clients:1/.test(await direct.info("clients")));
await redis.rpush("queue", "job");
assert.deepEqual(await popped, ["queue", "job"]);
assert.equal(await blocked.blpop("queue", 0.05), null);
assert.deepEqual(await blocked.ping(), "PONG");
await direct.lpush("from", "x");
assert.equal(await blocked.blmove("from", "to", "LEFT", "RIGHT", 1), "x");

// Streams, scans, other databases.
await redis.xadd("s", "1-1", "f", "v");
assert.deepEqual(await redis.xrange("s", "-", "+"), [["1-1", ["f", "v"]]]);
const waiting = blocked.xread("BLOCK", 5000, "STREAMS", "s", "$");
await until("it waits", async () => /blocked_clients:1/.test(await direct.info("clients")));
await redis.xadd("s", "2-1", "f", "w");
assert.deepEqual(await waiting, [["s", [["2-1", ["f", "w"]]]]]);
const seen = new Set();
for await (const keys of redis.scanStream({ match: "p:*", count: 50 })) keys.forEach((key) => seen.add(key));
assert.equal(seen.size, 500);
const second = open({ db: 2 });
assert.equal(await second.get("k"), null);
await second.set("k", "of the second");
assert.equal(await redis.get("k"), "w");

for (const client of [redis, direct, automatic, subscriber, blocked, second, ...adders]) client.disconnect();
console.log("all of it works");
