'use strict';

// The hub as a process.

const { spawn, spawnSync } = require('node:child_process');
const { once } = require('node:events');
const dns = require('node:dns/promises');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { collect, remember } = require('./secrets');

const REPOSITORY = path.resolve(__dirname, '../../../..');
const CONFIGURATION = path.join(REPOSITORY, 'tests/e2e/nave.toml');
const NAMES = ['hub1.nave.test', 'hub2.nave.test', 'dps.nave.test'];
const PORTS = [8883, 443];
const READY_MS = 60_000;
const STOP_MS = 30_000;

function binary() {
  const file = process.env.NAVE_BIN || path.join(REPOSITORY, 'target/release/nave');
  try {
    fs.accessSync(file, fs.constants.X_OK);
  } catch {
    throw new Error(`there is no hub to test at ${file}: run \`cargo xtask build\`, or name one by NAVE_BIN`);
  }
  return file;
}

async function missingNames() {
  const missing = [];
  for (const name of NAMES) {
    try {
      const { address } = await dns.lookup(name);
      if (!['127.0.0.1', '::1'].includes(address)) {
        throw new Error(`${name} is ${address}, not this machine`);
      }
    } catch (error) {
      if (error.code === undefined) {
        throw error;
      }
      missing.push(name);
    }
  }
  return missing;
}

async function ensureNames() {
  if ((await missingNames()).length === 0) {
    return;
  }
  const command = ['hosts', '--write', '--config', CONFIGURATION];
  const done = spawnSync(binary(), command, { encoding: 'utf8' });
  const missing = await missingNames();
  if (missing.length > 0) {
    throw new Error(
      `the names ${missing.join(', ')} are not in the hosts file; run as root: ${[binary(), ...command].join(' ')}\n`
        + `(tried, exit code ${done.status}: ${done.stdout}${done.stderr})`,
    );
  }
}

async function ensurePortsFree() {
  for (const port of PORTS) {
    const free = await new Promise((resolve) => {
      const probe = net.connect(port, '127.0.0.1');
      probe.once('connect', () => { probe.destroy(); resolve(false); });
      probe.once('error', () => resolve(true));
    });
    if (!free) {
      throw new Error(`something listens on port ${port} already: stop it, the SDKs dial fixed ports`);
    }
  }
}

function parseConnectionString(text) {
  return Object.fromEntries(text.split(';').filter(Boolean).map((part) => {
    const at = part.indexOf('=');
    return [part.slice(0, at), part.slice(at + 1)];
  }));
}

/** A hub or the provisioning service: its names and its owner's key. */
class Endpoint {
  constructor(description) {
    const parts = parseConnectionString(description.serviceConnectionString);
    const names = [description.hostName, ...(description.aliases ?? [])];
    this.name = description.name;
    this.policy = parts.SharedAccessKeyName;
    this.key = remember(parts.SharedAccessKey);
    // What DPS answers as the assigned hub, and what SDKs accept everywhere: the name with a dot.
    this.host = names.find((name) => name.includes('.')) ?? names[0];
    this.idScope = description.idScope;
    this.connectionString = `HostName=${this.host};SharedAccessKeyName=${this.policy};SharedAccessKey=${this.key}`;
  }
}

/** One hub process. */
class Nave {
  constructor(dataDir) {
    this.dataDir = dataDir;
    this.readyFile = path.join(dataDir, 'connection.json');
    this.log = `${dataDir}.log`;
    /** Added to the end of the configuration, which is the provisioning service's. */
    this.settings = '';
    this.child = undefined;
    this.connection = undefined;
  }

  hub(name) {
    return new Endpoint(this.connection.hubs.find((hub) => hub.name === name));
  }

  provisioning() {
    return new Endpoint(this.connection.provisioning);
  }

  isRunning() {
    return this.child !== undefined && this.child.exitCode === null;
  }

  logText() {
    return fs.existsSync(this.log) ? fs.readFileSync(this.log, 'utf8') : '';
  }

  logTail() {
    return this.logText().split('\n').slice(-40).join('\n');
  }

  async start() {
    const program = binary();
    await ensureNames();
    await ensurePortsFree();
    fs.mkdirSync(path.dirname(this.dataDir), { recursive: true });
    const log = fs.openSync(this.log, 'a');
    const configuration = `${this.dataDir}.toml`;
    fs.writeFileSync(configuration, fs.readFileSync(CONFIGURATION, 'utf8') + this.settings);
    const child = spawn(program, ['serve', '--data-dir', this.dataDir, '--config', configuration], {
      stdio: ['ignore', log, log],
    });
    fs.closeSync(log);
    // A test runner that is killed takes its hub along.
    this.atExit = () => child.kill('SIGKILL');
    process.once('exit', this.atExit);
    this.child = child;
    this.ended = once(child, 'exit');
    const deadline = Date.now() + READY_MS;
    while (!fs.existsSync(this.readyFile)) {
      if (child.exitCode !== null) {
        throw new Error(`nave serve ended with exit code ${child.exitCode}:\n${this.logTail()}`);
      }
      if (Date.now() > deadline) {
        child.kill('SIGKILL');
        throw new Error(`no ${this.readyFile} after ${READY_MS} ms:\n${this.logTail()}`);
      }
      await sleep(20);
    }
    this.connection = JSON.parse(fs.readFileSync(this.readyFile, 'utf8'));
    remember(this.connection.admin?.token);
    const tls = path.join(this.dataDir, 'tls');
    const files = fs.existsSync(tls) ? fs.readdirSync(tls) : [];
    for (const file of files.filter((name) => name.endsWith('.key'))) {
      remember(fs.readFileSync(path.join(tls, file), 'utf8'));
    }
  }

  /** Notes what it says of itself, to be searched for secrets. */
  async collect() {
    // Another host of the functions has no such interface.
    if (!this.connection.admin) return;
    const { url, token } = this.connection.admin;
    for (const place of ['/metrics', '/admin/status', '/admin/configuration']) {
      const answer = await fetch(url + place, { headers: { Authorization: `Bearer ${token}` } });
      if (!answer.ok) {
        throw new Error(`${place}: ${answer.status}`);
      }
      collect(place, await answer.text());
    }
  }

  async stop() {
    await this.collect();
    const { child } = this;
    child.kill('SIGTERM');
    const stuck = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    const [code, signal] = await this.ended;
    clearTimeout(stuck);
    process.off('exit', this.atExit);
    this.child = undefined;
    if (code !== 0) {
      throw new Error(`exit code ${code} (${signal}) after SIGTERM:\n${this.logTail()}`);
    }
    if (fs.existsSync(this.readyFile)) {
      throw new Error('the ready file is still there after a clean stop');
    }
  }

  async restart() {
    await this.stop();
    await this.start();
  }
}

module.exports = { Endpoint, Nave, parseConnectionString };
