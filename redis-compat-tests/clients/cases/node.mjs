// ioredis and node-redis against one node. CLIENT chooses the library; the address comes from ADDRESSES.
// NODE_FOLDER is the folder whose node_modules has the pinned packages.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const load = createRequire(process.env.NODE_FOLDER + '/');
const [host, port] = process.env.ADDRESSES.split(',')[0].split(':');
const open = [];

// Both libraries behind one function that sends raw words and one that sends a transaction.
async function connect() {
  if (process.env.CLIENT === 'ioredis') {
    const Redis = load('ioredis');
    const client = new Redis({ host, port: +port });
    client.on('error', () => {});
    open.push(() => client.disconnect());
    return {
      send: (...words) => client.call(...words.map(String)),
      multi: async (commands) => (await client.multi(commands).exec()).map(([error, value]) => { if (error) throw error; return value; }),
      subscribe: async (channel, heard) => { client.on('message', (_channel, text) => heard(text)); await client.subscribe(channel); },
    };
  }
  const client = load('redis').createClient({ url: `redis://${host}:${port}`, RESP: +(process.env.RESP ?? 2) });
  client.on('error', () => {});
  await client.connect();
  open.push(() => client.destroy());
  return {
    send: (...words) => client.sendCommand(words.map(String)),
    multi: (commands) => commands.reduce((chain, words) => chain.addCommand(words.map(String)), client.multi()).exec(),
    subscribe: (channel, heard) => client.subscribe(channel, heard),
  };
}

const cases = {
  async strings({ send }) {
    assert.equal(await send('SET', 'js:s', 'value'), 'OK');
    assert.equal(await send('GET', 'js:s'), 'value');
    assert.equal(await send('GET', 'js:none'), null);
    assert.equal(await send('SET', 'js:s', 'x', 'NX'), null);
    await send('MSET', 'js:a', 1, 'js:b', 2);
    assert.deepEqual(await send('MGET', 'js:a', 'js:none', 'js:b'), ['1', null, '2']);
    await send('SET', 'js:big', 'z'.repeat(1 << 20));
    assert.equal((await send('GET', 'js:big')).length, 1 << 20);
  },
  async expiry({ send }) {
    await send('SET', 'js:e', 1, 'EX', 100);
    const ttl = await send('TTL', 'js:e');
    assert.ok(ttl >= 98 && ttl <= 100, `TTL ${ttl}`);
    await send('PEXPIRE', 'js:e', 10);
    const deadline = Date.now() + 5000;
    while (await send('EXISTS', 'js:e')) assert.ok(Date.now() < deadline, 'the key does not expire');
  },
  async pipelines({ send }) {
    await send('DEL', 'js:c');
    const replies = await Promise.all(Array.from({ length: 2000 }, () => send('INCR', 'js:c')));
    assert.deepEqual(replies, Array.from({ length: 2000 }, (_, i) => i + 1));
  },
  async transactions({ multi, send }) {
    assert.deepEqual(await multi([['set', 'js:t', '1'], ['incr', 'js:t'], ['get', 'js:t']]), ['OK', 2, '2']);
    assert.equal(await send('GET', 'js:t'), '2');
  },
  async channels({ send }) {
    const listener = await connect();
    let heard;
    const message = new Promise((resolve) => { heard = resolve; });
    await listener.subscribe('js:news', heard);
    assert.equal(await send('PUBLISH', 'js:news', 'hello'), 1);
    assert.equal(await message, 'hello');
  },
  async scan({ send }) {
    await Promise.all(Array.from({ length: 1000 }, (_, i) => send('SET', `js:scan:${i}`, i)));
    const found = [];
    let cursor = '0';
    do {
      const [next, keys] = await send('SCAN', cursor, 'MATCH', 'js:scan:*', 'COUNT', 50);
      found.push(...keys);
      cursor = String(next);
    } while (cursor !== '0');
    assert.equal(new Set(found).size, 1000);
  },
  async collections({ send }) {
    await send('DEL', 'js:l', 'js:h', 'js:set');
    assert.equal(await send('RPUSH', 'js:l', 'a', 'b'), 2);
    assert.deepEqual(await send('LRANGE', 'js:l', 0, -1), ['a', 'b']);
    assert.equal(await send('HSET', 'js:h', 'f', 1), 1);
    assert.equal(await send('SADD', 'js:set', 'm'), 1);
    assert.equal(await send('SPOP', 'js:set'), 'm');
  },
  async errors({ send }) {
    await send('SET', 'js:w', 'text');
    await assert.rejects(send('INCR', 'js:w'), /not an integer/);
    await assert.rejects(send('LPUSH', 'js:w', 1), /WRONGTYPE/);
  },
  async reconnection({ send }) {
    const other = await connect();
    const id = await send('CLIENT', 'ID');
    assert.equal(await other.send('CLIENT', 'KILL', 'ID', id), 1);
    const deadline = Date.now() + 10000;
    for (;;) {
      try { await send('SET', 'js:r', 1); break; } catch (error) { if (Date.now() > deadline) throw error; await new Promise(setImmediate); }
    }
    assert.equal(await other.send('GET', 'js:r'), '1');
  },
};

for (const [name, run] of Object.entries(cases)) {
  try {
    await run(await connect());
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name} # ${String(error.message).split('\n').join(' ')}`);
  }
}
console.log('done');
open.forEach((close) => { try { close(); } catch { /* already closed */ } });
process.exit(0);
