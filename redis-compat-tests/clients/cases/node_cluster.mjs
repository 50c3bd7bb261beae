// The cluster clients of ioredis and node-redis against the nodes in ADDRESSES. CLIENT chooses the library, NODE_FOLDER
// is the folder whose node_modules has the pinned packages. MODE=cases runs each case once. MODE=work says `working`,
// reads and writes until the standard input ends, while the caller moves slots, and reads back what was acknowledged.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const load = createRequire(process.env.NODE_FOLDER + '/');
const addresses = process.env.ADDRESSES.split(',').map((address) => address.split(':'));
const WORKERS = 8;

// Both libraries behind the same few functions. `send` takes the words of a command whose second one is its key.
async function connect() {
  if (process.env.CLIENT === 'ioredis') {
    const { Cluster } = load('ioredis');
    const client = new Cluster(addresses.map(([host, port]) => ({ host, port: +port })));
    client.on('error', () => {});
    return {
      send: (...words) => client.call(...words.map(String)),
      multi: async (commands) => (await client.multi(commands.map((words) => words.map(String))).exec()).map(([error, value]) => { if (error) throw error; return value; }),
      onNodes: (...words) => Promise.all(client.nodes('master').map((node) => node.call(...words.map(String)))),
      scanNodes: async (visit) => { for (const node of client.nodes('master')) await visit((...words) => node.call(...words.map(String))); },
      close: () => client.disconnect(),
    };
  }
  const client = load('redis').createCluster({ rootNodes: addresses.map(([host, port]) => ({ url: `redis://${host}:${port}` })), RESP: +(process.env.RESP ?? 2) });
  client.on('error', () => {});
  await client.connect();
  const nodes = () => Promise.all(client.masters.map((node) => client.nodeClient(node)));
  return {
    send: (...words) => client.sendCommand(String(words[1]), false, words.map(String)),
    multi: (commands) => commands.reduce((chain, words) => chain.addCommand(String(words[1]), false, words.map(String)), client.multi()).exec(),
    onNodes: async (...words) => Promise.all((await nodes()).map((node) => node.sendCommand(words.map(String)))),
    scanNodes: async (visit) => { for (const node of await nodes()) await visit((...words) => node.sendCommand(words.map(String))); },
    close: () => client.destroy(),
  };
}

const range = (count) => Array.from({ length: count }, (_, i) => i);

const cases = {
  async topology({ onNodes }) {
    const answers = await onNodes('CLUSTER', 'INFO');
    assert.equal(answers.length, addresses.length);
    for (const answer of answers) assert.match(String(answer), /cluster_state:ok/);
  },
  async strings({ send }) {
    await Promise.all(range(500).map((i) => send('SET', `jc:s:${i}`, i)));
    assert.deepEqual(await Promise.all(range(500).map((i) => send('GET', `jc:s:${i}`))), range(500).map(String));
    assert.equal(await send('GET', 'jc:none'), null);
    await send('SET', 'jc:big', 'z'.repeat(1 << 20));
    assert.equal((await send('GET', 'jc:big')).length, 1 << 20);
  },
  async tags({ send }) {
    await send('MSET', '{jc}a', 1, '{jc}b', 2);
    assert.deepEqual(await send('MGET', '{jc}a', '{jc}none', '{jc}b'), ['1', null, '2']);
    await assert.rejects(send('MGET', 'jc:a', 'jc:b', 'jc:c'), /CROSSSLOT/);
  },
  async pipelines({ send }) {
    await Promise.all(range(20).map((i) => send('DEL', `jc:c:${i}`)));
    const replies = await Promise.all(range(2000).map((i) => send('INCR', `jc:c:${i % 20}`)));
    assert.deepEqual(replies, range(2000).map((i) => Math.floor(i / 20) + 1));
  },
  async transactions({ multi, send }) {
    assert.deepEqual(await multi([['set', '{jc}t', '1'], ['incr', '{jc}t'], ['get', '{jc}t']]), ['OK', 2, '2']);
    assert.equal(await send('GET', '{jc}t'), '2');
  },
  async collections({ send }) {
    await Promise.all(['jc:l', 'jc:h', 'jc:set'].map((key) => send('DEL', key)));
    assert.equal(await send('RPUSH', 'jc:l', 'a', 'b'), 2);
    assert.deepEqual(await send('LRANGE', 'jc:l', 0, -1), ['a', 'b']);
    assert.equal(await send('HSET', 'jc:h', 'f', 1), 1);
    assert.equal(await send('SADD', 'jc:set', 'm'), 1);
  },
  async scan({ send, scanNodes }) {
    await Promise.all(range(1000).map((i) => send('SET', `jc:scan:${i}`, i)));
    const found = [];
    await scanNodes(async (ask) => {
      let cursor = '0';
      do {
        const [next, keys] = await ask('SCAN', cursor, 'MATCH', 'jc:scan:*', 'COUNT', 100);
        found.push(...keys);
        cursor = String(next);
      } while (cursor !== '0');
    });
    assert.equal(found.length, 1000);
    assert.equal(new Set(found).size, 1000);
  },
  async errors({ send }) {
    await send('SET', 'jc:w', 'text');
    await assert.rejects(send('INCR', 'jc:w'), /not an integer/);
    await assert.rejects(send('LPUSH', 'jc:w', 1), /WRONGTYPE/);
  },
};

const report = (name, error) => console.log(error ? `not ok ${name} # ${String(error.message).split('\n').join(' ')}` : `ok ${name}`);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function work() {
  const client = await connect();
  const counts = new Map();
  let stopped = false;
  process.stdin.on('end', () => { stopped = true; }).resume();
  const prefix = `jc:work:${process.env.CLIENT}${process.env.RESP ?? ''}`;
  async function worker(number) {
    for (let turn = 0; !stopped; turn++) {
      const key = `${prefix}:${number}:${turn % 100}`;
      const value = (counts.get(key) ?? 0) + 1;
      counts.set(key, value);
      assert.equal(await client.send('INCR', key), value, `INCR ${key}`);
      assert.equal(await client.send('GET', key), String(value), `GET ${key}`);
      await client.send('HSET', `{${key}}h`, 'f', value);
      await pause(1);
    }
  }
  const workers = range(WORKERS).map(worker);
  console.log('working');
  let error;
  for (const done of await Promise.allSettled(workers)) error ??= done.reason;
  try {
    if (error) throw error;
    let total = 0;
    for (const [key, value] of counts) {
      total += value;
      assert.equal(await client.send('GET', key), String(value), `in the end, GET ${key}`);
      assert.equal(await client.send('HGET', `{${key}}h`, 'f'), String(value), `in the end, HGET ${key}`);
    }
    assert.ok(total > 100, `only ${total}`);
  } catch (failure) {
    error = failure;
  }
  report('work while slots move', error);
}

async function each() {
  for (const [name, run] of Object.entries(cases)) {
    let failure;
    const client = await connect();
    try { await run(client); } catch (error) { failure = error; }
    report(name, failure);
    try { client.close(); } catch { /* already closed */ }
  }
}

await (process.env.MODE === 'work' ? work() : each());
console.log('done');
process.exit(0);
