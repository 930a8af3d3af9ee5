'use strict';

// The official device client, with what it receives kept until a test asks for it.

const assert = require('node:assert/strict');
const { EventEmitter, once } = require('node:events');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { NoRetry } = require('azure-iot-common');

const open = new Set();

/** Waits until `look` finds something; it is asked again at each `event` of `emitter`. */
async function until(emitter, event, look, what, milliseconds = 30_000) {
  const signal = AbortSignal.timeout(milliseconds);
  for (;;) {
    const found = look();
    if (found) {
      return found;
    }
    try {
      await once(emitter, event, { signal });
    } catch {
      assert.fail(`${what}: nothing after ${milliseconds} ms`);
    }
  }
}

class Device extends EventEmitter {
  constructor(client, { retry = true } = {}) {
    super();
    this.client = client;
    this.desired = [];
    this.disconnects = [];
    if (!retry) {
      client.setRetryPolicy(new NoRetry());
    }
    client.on('error', (error) => this.emit('failure', error));
    client.on('disconnect', (reason) => {
      this.disconnects.push(reason);
      this.emit('disconnect', reason);
    });
  }

  static async connect(client, options) {
    const device = new Device(client, options);
    await client.open();
    open.add(device);
    return device;
  }

  /** The twin; from then on what the hub wants is kept in `desired`. */
  async watch() {
    const twin = await this.client.getTwin();
    twin.on('properties.desired', (delta) => {
      this.desired.push(structuredClone(delta));
      this.emit('desired');
    });
    // Answered after the subscription that the listener asked for.
    await twin.get();
    this.desired.length = 0;
    return twin;
  }

  nextDesired(wanted = () => true) {
    return until(this, 'desired', () => {
      const at = this.desired.findIndex(wanted);
      return at < 0 ? undefined : this.desired.splice(0, at + 1).at(-1);
    }, 'a change of desired properties');
  }

  waitDisconnected() {
    return until(this, 'disconnect', () => this.disconnects.length > 0, 'the end of the connection');
  }

  async close() {
    open.delete(this);
    await new Promise((resolve) => this.client.close(() => resolve()));
  }
}

function withKey(connectionString, options) {
  return Device.connect(Client.fromConnectionString(connectionString, Mqtt), options);
}

async function withCertificate(host, deviceId, certificate, options) {
  const client = Client.fromConnectionString(`HostName=${host};DeviceId=${deviceId};x509=true`, Mqtt);
  await client.setOptions({ cert: certificate.chain, key: certificate.key });
  return Device.connect(client, options);
}

async function closeAll() {
  for (const device of open) {
    await Promise.race([device.close(), new Promise((resolve) => { setTimeout(resolve, 5000).unref(); })]);
  }
}

/** Ends this process's connections to a port as a lost network does. */
function cutConnections(port) {
  const sockets = process._getActiveHandles().filter((handle) => handle.remotePort === port && !handle.destroyed);
  for (const socket of sockets) {
    socket.destroy();
  }
  return sockets.length;
}

module.exports = { Device, closeAll, cutConnections, until, withCertificate, withKey };
