'use strict';

// The official device client, with what it receives kept until a test asks for it.

const assert = require('node:assert/strict');
const { EventEmitter, once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const { Client, ModuleClient } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { ExponentialBackOffWithJitter, NoRetry } = require('azure-iot-common');

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

/** The SDK's rule of what to try again, at shorter intervals, and no longer once the test is done with the device. */
class RetryUntilClosed extends ExponentialBackOffWithJitter {
  constructor() {
    super();
    this.closed = false;
  }

  shouldRetry(error) {
    return !this.closed && super.shouldRetry(error);
  }

  nextRetryTimeout(count) {
    return Math.min(100 * 2 ** count, 1000);
  }
}

class Device extends EventEmitter {
  constructor(client, { retry = true } = {}) {
    super();
    this.client = client;
    this.desired = [];
    this.disconnects = [];
    this.policy = retry ? new RetryUntilClosed() : new NoRetry();
    client.setRetryPolicy(this.policy);
    client.on('error', (error) => this.emit('failure', error));
    client.on('disconnect', (reason) => {
      this.disconnects.push(reason);
      this.emit('disconnect', reason);
    });
  }

  static async connect(client, options) {
    const device = new Device(client, options);
    open.add(device);
    try {
      await client.open();
    } catch (error) {
      // Closed even so: a client that was refused keeps timers.
      await device.close();
      throw error;
    }
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
    this.policy.closed = true;
    const closed = new Promise((resolve) => { this.client.close(() => resolve()); });
    // A client whose connection the hub has ended may never say that it is closed.
    await Promise.race([closed, sleep(2000, undefined, { ref: false })]);
  }
}

function withKey(connectionString, options) {
  return Device.connect(Client.fromConnectionString(connectionString, Mqtt), options);
}

function moduleWithKey(connectionString, options) {
  return Device.connect(ModuleClient.fromConnectionString(connectionString, Mqtt), options);
}

async function withCertificate(host, deviceId, certificate, options) {
  const client = Client.fromConnectionString(`HostName=${host};DeviceId=${deviceId};x509=true`, Mqtt);
  await client.setOptions({ cert: certificate.chain, key: certificate.key });
  return Device.connect(client, options);
}

async function closeAll() {
  await Promise.all([...open].map((device) => device.close()));
}

/** Ends this process's connections to a port as a lost network does. */
function cutConnections(port) {
  const sockets = process._getActiveHandles().filter((handle) => handle.remotePort === port && !handle.destroyed);
  for (const socket of sockets) {
    socket.destroy();
  }
  return sockets.length;
}

module.exports = { Device, closeAll, cutConnections, moduleWithKey, until, withCertificate, withKey };
