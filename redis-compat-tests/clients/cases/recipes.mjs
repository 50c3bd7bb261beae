// What applications do every day, with ioredis and node-redis: against one node, a cluster (MODE=cluster), and a plain client
// on a proxy listener. CLIENT chooses the library, NODE_FOLDER is the folder whose node_modules has the pinned packages. Keys
// that are used together have a common hash tag, as an application for a cluster writes them.
import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';

const load = createRequire(process.env.NODE_FOLDER + '/');
const addresses = process.env.ADDRESSES.split(',').map((address) => address.split(':'));
const [host, port] = addresses[0];
const clustered = process.env.MODE === 'cluster';
const open = [];

// Both libraries behind two functions; the first argument says by which key a cluster client finds the node.
async function connect() {
  if (process.env.CLIENT === 'ioredis') {
    const Redis = load('ioredis');
    const client = clustered ? new Redis.Cluster(addresses.map(([host, port]) => ({ host, port: +port }))) : new Redis({ host, port: +port });
    client.on('error', () => {});
    open.push(() => client.disconnect());
    return {
      send: (key, ...words) => client.call(...words.map(String)),
      multi: async (key, commands) => (await client.multi(commands.map((words) => words.map(String))).exec()).map(([error, value]) => { if (error) throw error; return value; }),
    };
  }
  const library = load('redis');
  const RESP = +(process.env.RESP ?? 2);
  const client = clustered
    ? library.createCluster({ rootNodes: addresses.map(([host, port]) => ({ url: `redis://${host}:${port}` })), RESP })
    : library.createClient({ url: `redis://${host}:${port}`, RESP });
  client.on('error', () => {});
  await client.connect();
  open.push(() => client.destroy());
  const words = (key, list) => (clustered ? [key, false, list.map(String)] : [list.map(String)]);
  return {
    send: (key, ...list) => client.sendCommand(...words(key, list)),
    multi: (key, commands) => commands.reduce((chain, list) => chain.addCommand(...words(key, list)), client.multi()).exec(),
  };
}

const range = (count) => Array.from({ length: count }, (_, i) => i);
// RESP3 has maps where RESP2 has pairs, and pairs where RESP2 has a flat list.
const flat = (value) => (Array.isArray(value) ? value : Object.entries(value ?? {})).flat(Infinity).map(String);

const cases = {
  async rate_limiter({ multi, send }, tag) {
    let passed = 0;
    for (const _ of range(8)) {
      const [count] = await multi(tag, [['incr', `${tag}window`], ['expire', `${tag}window`, 60, 'NX']]);
      passed += count <= 5;
    }
    assert.equal(passed, 5);
    assert.ok(await send(tag, 'TTL', `${tag}window`) > 0);
  },
  async queue({ send }, tag) {
    const [todo, doing, done] = [`${tag}todo`, `${tag}doing`, []];
    const work = async () => {
      // A client that waits is of no use for anything else.
      const own = await connect();
      for (;;) {
        const job = await own.send(todo, 'BLMOVE', todo, doing, 'LEFT', 'RIGHT', 5);
        if (job === null || String(job) === 'end') return;
        done.push(String(job));
        assert.equal(await own.send(doing, 'LREM', doing, 1, job), 1);
      }
    };
    const workers = range(3).map(work);
    for (const number of range(60)) await send(todo, 'RPUSH', todo, `job:${number}`);
    await send(todo, 'RPUSH', todo, 'end', 'end', 'end');
    await Promise.all(workers);
    assert.deepEqual(done.sort(), range(60).map((number) => `job:${number}`).sort());
    assert.equal(await send(doing, 'LLEN', doing), 3);
  },
  async leaderboard({ send }, tag) {
    const board = `${tag}board`;
    await send(board, 'ZADD', board, ...range(200).flatMap((number) => [number, `player:${number}`]));
    assert.equal(Number(await send(board, 'ZINCRBY', board, 500, 'player:7')), 507);
    assert.deepEqual(flat(await send(board, 'ZRANGE', board, 0, 1, 'REV', 'WITHSCORES')), ['player:7', '507', 'player:199', '199']);
    assert.equal(await send(board, 'ZREVRANK', board, 'player:7'), 0);
    assert.equal(await send(board, 'ZCOUNT', board, 100, '(150'), 50);
  },
  async stream_group({ send }, tag) {
    const stream = `${tag}events`;
    await send(stream, 'XGROUP', 'CREATE', stream, 'workers', '0', 'MKSTREAM');
    const ids = [];
    for (const number of range(30)) ids.push(String(await send(stream, 'XADD', stream, '*', 'number', number)));
    const read = async (consumer, count) => flat(await send(stream, 'XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', count, 'STREAMS', stream, '>')).filter((word) => ids.includes(word));
    const left = await read('lost', 10);
    const done = await read('steady', 100);
    assert.equal(left.length + done.length, 30);
    assert.equal(await send(stream, 'XACK', stream, 'workers', ...done), 20);
    const claimed = flat(await send(stream, 'XAUTOCLAIM', stream, 'workers', 'steady', 0, '0-0', 'JUSTID')).filter((word) => ids.includes(word));
    assert.deepEqual(claimed, left);
    assert.equal(await send(stream, 'XACK', stream, 'workers', ...claimed), 10);
    assert.equal(await send(stream, 'XLEN', stream), 30);
  },
  async lock({ send }, tag) {
    const [name, counter] = [`${tag}lock`, `${tag}counter`];
    await send(counter, 'SET', counter, 0);
    await Promise.all(range(20).map(async () => {
      const token = randomUUID();
      while (await send(name, 'SET', name, token, 'NX', 'PX', 30000) === null) await new Promise((next) => setTimeout(next, 2));
      await send(counter, 'SET', counter, Number(await send(counter, 'GET', counter)) + 1);
      assert.equal(String(await send(name, 'GETDEL', name)), token);
    }));
    assert.equal(String(await send(counter, 'GET', counter)), '20');
  },
  async sessions({ send }, tag) {
    const session = `${tag}session`;
    await send(session, 'HSET', session, 'user', 'ann', 'visits', 1);
    assert.equal(await send(session, 'EXPIRE', session, 1800), 1);
    assert.equal(await send(session, 'HINCRBY', session, 'visits', 2), 3);
    assert.deepEqual(flat(await send(session, 'HGETALL', session)), ['user', 'ann', 'visits', '3']);
  },
  async bloom({ send }, tag) {
    const bloom = `${tag}bloom`;
    const places = (word) => { const digest = createHash('sha256').update(word).digest(); return range(4).map((i) => digest.readUInt16BE(2 * i)); };
    await Promise.all(range(500).flatMap((number) => places(`word:${number}`)).map((place) => send(bloom, 'SETBIT', bloom, place, 1)));
    const found = async (word) => (await Promise.all(places(word).map((place) => send(bloom, 'GETBIT', bloom, place)))).every((bit) => bit === 1);
    for (const number of range(50)) assert.ok(await found(`word:${number * 10}`));
    assert.ok(await send(bloom, 'BITCOUNT', bloom) > 1500);
  },
  async places({ send }, tag) {
    const shops = `${tag}shops`;
    assert.equal(await send(shops, 'GEOADD', shops, 13.361389, 38.115556, 'Palermo', 15.087269, 37.502669, 'Catania'), 2);
    assert.equal(String(await send(shops, 'GEODIST', shops, 'Palermo', 'Catania', 'km')), '166.2742');
    assert.deepEqual(flat(await send(shops, 'GEOSEARCH', shops, 'FROMLONLAT', 15, 37, 'BYRADIUS', 200, 'km', 'ASC')), ['Catania', 'Palermo']);
  },
};

for (const [name, run] of Object.entries(cases)) {
  try {
    await run(await connect(), `{${name}-${randomUUID()}}:`);
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name} # ${String(error.message).split('\n').join(' ')}`);
  }
}
console.log('done');
open.forEach((close) => { try { close(); } catch { /* already closed */ } });
process.exit(0);
