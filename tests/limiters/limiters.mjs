// rate-limit-redis and rate-limiter-flexible as they are, against the server on the port that is given: of many calls at
// once, over several connections, exactly as many are admitted as the limit says.
import assert from 'node:assert/strict';
import express from 'express';
import { rateLimit } from 'express-rate-limit';
import { Redis } from 'ioredis';
import { RedisStore } from 'rate-limit-redis';
import { RateLimiterRedis } from 'rate-limiter-flexible';

const port = Number(process.argv[2]);
const clients = Array.from({ length: 4 }, () => new Redis(port, '127.0.0.1', { maxRetriesPerRequest: 0 }));

async function throughExpress() {
  const limit = 25;
  const servers = await Promise.all(clients.map((client) => new Promise((resolve) => {
    const store = new RedisStore({ sendCommand: (command, ...rest) => client.call(command, ...rest) });
    const app = express();
    app.use(rateLimit({ windowMs: 60_000, limit, store, standardHeaders: 'draft-8', validate: false }));
    app.get('/', (_, response) => response.send('ok'));
    const server = app.listen(0, '127.0.0.1', () => resolve(server));
  })));
  const ask = (server) => fetch(`http://127.0.0.1:${server.address().port}/`).then((response) => response.status);
  const asked = servers.flatMap((server) => Array.from({ length: 30 }, () => ask(server)));
  const statuses = await Promise.all(asked);
  assert.equal(statuses.filter((status) => status === 200).length, limit);
  assert.equal(statuses.filter((status) => status === 429).length, statuses.length - limit);
  // A script that the server has forgotten is loaded again.
  await clients[0].script('FLUSH');
  assert.equal(await ask(servers[0]), 429);
  servers.forEach((server) => { server.closeAllConnections(); server.close(); });
}

async function flexible() {
  const points = 30;
  const limiters = clients.map((storeClient) => new RateLimiterRedis({ storeClient, points, duration: 60, keyPrefix: 'flex' }));
  const consumed = limiters.flatMap((limiter) => Array.from({ length: 50 }, () => limiter.consume('ada')));
  const results = await Promise.allSettled(consumed);
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, points);
  for (const { reason } of results.filter(({ status }) => status === 'rejected')) {
    assert.equal(reason.remainingPoints, 0);
    assert.ok(reason.msBeforeNext > 0 && reason.msBeforeNext <= 60_000);
  }
  assert.equal((await limiters[0].get('ada')).consumedPoints, 200);
  assert.equal(await limiters[1].delete('ada'), true);
  assert.equal((await limiters[2].consume('ada', 10)).remainingPoints, points - 10);
  assert.equal((await limiters[3].block('ada', 5)).remainingPoints, 0);
  await assert.rejects(limiters[0].consume('ada'), ({ msBeforeNext }) => msBeforeNext <= 5_000);
}

await throughExpress();
await flexible();
clients.forEach((client) => client.disconnect());
console.log('exactly the limit');
