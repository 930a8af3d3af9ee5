'use strict';

// What every test file requires first.
//
// Node.js takes further trusted authorities from a file that has to be named before the process starts
// (NODE_EXTRA_CA_CERTS), and some SDKs have no option of their own for it. So a test file first lets a hub make its
// authority in a fresh data directory, and then runs itself once more with that file named; the tests are in the second run.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const DATA_DIR = 'NAVE_E2E_DATA_DIR';

if (!process.env[DATA_DIR]) {
  process.exit(runAgainWithAuthority());
}

const { after, before, describe: nodeDescribe, test: nodeTest } = require('node:test');
const assert = require('node:assert/strict');
const { Nave } = require('./server');
const { DpsRest, HubRest } = require('./rest');
const { Feed } = require('./events');
const devices = require('./devices');
const secrets = require('./secrets');

function runAgainWithAuthority() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nave-e2e-node-'));
  const dataDir = path.join(directory, 'data');
  try {
    const prepared = spawnSync(process.execPath, [path.join(__dirname, 'prepare.js'), dataDir], {
      encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (prepared.status !== 0) {
      return prepared.status ?? 1;
    }
    const again = spawnSync(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
      stdio: 'inherit',
      env: { ...process.env, [DATA_DIR]: dataDir, NODE_EXTRA_CA_CERTS: prepared.stdout.trim() },
    });
    return again.status ?? 1;
  } finally {
    if (!process.env.NAVE_KEEP) {
      fs.rmSync(directory, { recursive: true, force: true });
    }
  }
}

/** The hub of this test file and the REST of its parts; filled when the tests begin. */
const here = { nave: new Nave(process.env[DATA_DIR]), hub1: undefined, hub2: undefined, dps: undefined, feed: undefined };

before(async () => {
  await here.nave.start();
  here.hub1 = new HubRest(here.nave.hub('hub1'));
  here.hub2 = new HubRest(here.nave.hub('hub2'));
  here.dps = new DpsRest(here.nave.provisioning());
  here.feed = await Feed.open(here.hub1.endpoint);
});

after(async () => {
  here.feed?.close();
  await devices.closeAll();
  if (here.nave.isRunning()) {
    await here.nave.stop();
  }
  const log = here.nave.logText();
  secrets.collect('log', log);
  assert.ok(secrets.known().size > 0, 'the tests used no key');
  assert.deepEqual(secrets.leaks(), [], 'outputs that hold a key');
  assert.ok(!log.includes('SharedAccessSignature sr='), "a token is in the hub's log");
  assert.ok(!log.includes('panicked'), log);
});

let number = 0;

/** An id that no other test uses. */
function unique(suffix = '') {
  number += 1;
  return `${path.basename(process.argv[1]).split('.')[0]}-${number}${suffix}`;
}

/** The REST of the hub that a device was assigned to. */
function hubNamed(host) {
  const hub = [here.hub1, here.hub2].find((candidate) => candidate.endpoint.host === host);
  assert.ok(hub, `${host} is none of the hubs`);
  return hub;
}

/** Why the host under test cannot do what is called so; undefined if it can. */
function difference(name) {
  if (process.env.NAVE_HOST !== 'spin') {
    return undefined;
  }
  return require('../../../spin-host/differences.json').node[name];
}

/** Tests about one thing. */
function describe(name, body) {
  return nodeDescribe(name, { skip: difference(name) ?? false }, body);
}

/** A test that ends, whatever it waits for. */
function test(name, body) {
  return nodeTest(name, { timeout: 120_000, skip: difference(name) ?? false }, body);
}

module.exports = { describe, here, hubNamed, test, unique };
