'use strict';

const { describe, here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { EventEmitter } = require('node:events');
const { Client, Message } = require('azure-iot-device');
const { Http } = require('azure-iot-device-http');
const devices = require('./harness/devices');
const pki = require('./harness/pki');

/** A device over HTTPS. Once somebody listens for messages, the SDK asks for them every second. */
async function overHttp(connectionString, options) {
  const client = Client.fromConnectionString(connectionString, Http);
  if (options) {
    await client.setOptions(options);
  }
  await client.open();
  return client;
}

describe('a device over HTTPS', () => {
  async function device() {
    const created = await here.hub1.createDevice(unique());
    return [created.deviceId, await overHttp(here.hub1.deviceConnectionString(created))];
  }

  test('telemetry with everything that the SDK can set', async () => {
    const [id, client] = await device();
    const body = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, n) => n)), Buffer.from('grüße')]);
    const message = new Message(body);
    Object.assign(message, {
      messageId: 'm-1', correlationId: 'c-1', userId: 'u-1', contentType: 'application/json', contentEncoding: 'utf-8',
    });
    message.properties.add('level', '3');
    message.properties.add('text', 'a & b');
    await client.sendEvent(message);
    const [event] = await here.feed.wait(id);
    assert.deepEqual(event.body, body);
    assert.deepEqual(event.properties, { level: '3', text: 'a & b' });
    const { systemProperties: system } = event;
    assert.deepEqual(
      [system['message-id'], system['correlation-id'], system['user-id'], system['content-type'], system['content-encoding']],
      ['m-1', 'c-1', 'u-1', 'application/json', 'utf-8'],
    );
    assert.equal(system['iothub-connection-device-id'], id);
    await client.close();
  });

  test('a batch', async () => {
    const [id, client] = await device();
    const messages = ['one', 'two', 'three'].map((text) => new Message(text));
    messages[1].properties.add('Which', '2');
    await client.sendEventBatch(messages);
    const events = await here.feed.wait(id, 3);
    assert.deepEqual(events.map((event) => event.body.toString()), ['one', 'two', 'three']);
    assert.deepEqual(events.map((event) => event.properties), [{}, { Which: '2' }, {}]);
    await assert.rejects(
      client.sendEventBatch([new Message('x'.repeat(200_000)), new Message('x'.repeat(200_000))]),
      { name: 'MessageTooLargeError' },
    );
    await client.close();
  });

  test('a certificate instead of a token', async () => {
    const name = unique();
    const certificate = pki.selfSigned(name);
    await here.hub1.createDevice(name, {
      authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: certificate.thumbprint('sha256') } },
    });
    const connectionString = `HostName=${here.hub1.endpoint.host};DeviceId=${name};x509=true`;
    // The SDK says that options are set only if one of them is about receiving.
    const client = await overHttp(connectionString, { cert: certificate.chain, key: certificate.key, interval: 1 });
    await client.sendEvent(new Message('by certificate'));
    assert.equal((await here.feed.wait(name))[0].body.toString(), 'by certificate');
    await client.close();
  });

  test('somebody else is refused', async () => {
    const [one, other] = [await here.hub1.createDevice(unique()), await here.hub1.createDevice(unique())];
    const client = await overHttp(here.hub1.deviceConnectionString({ ...other, deviceId: one.deviceId }));
    await assert.rejects(client.sendEvent(new Message('x')), { name: 'UnauthorizedError' });
    await client.close();
  });

  test('messages are completed, rejected and abandoned', async () => {
    const [id, client] = await device();
    const messages = [];
    const arrived = new EventEmitter();
    client.on('message', (message) => {
      messages.push(message);
      arrived.emit('message');
    });
    const received = () => devices.until(arrived, 'message', () => messages.shift(), 'a message');
    for (const [action, outcome] of [['complete', 'Success'], ['reject', 'Rejected']]) {
      const sent = await here.hub1.send(id, `to ${action}`, {
        'iothub-ack': 'full', 'iothub-messageid': `${id}-${action}`, 'iothub-app-action': action, 'iothub-correlationid': 'c',
      });
      assert.equal(sent, `${id}-${action}`);
      const message = await received();
      assert.equal(message.getData().toString(), `to ${action}`);
      assert.deepEqual([message.messageId, message.correlationId], [`${id}-${action}`, 'c']);
      assert.equal(message.properties.getValue('iothub-app-action'), action);
      assert.equal((await here.hub1.device(id)).cloudToDeviceMessageCount, 1);
      await client[action](message);
      assert.equal((await here.hub1.device(id)).cloudToDeviceMessageCount, 0);
      assert.equal(await here.hub1.outcome(`${id}-${action}`), outcome);
      await assert.rejects(client[action](message), (error) => error.response?.statusCode === 412);
    }
    await here.hub1.send(id, 'twice');
    const first = await received();
    await client.abandon(first);
    const second = await received();
    assert.equal(second.getData().toString(), 'twice');
    assert.notEqual(second.lockToken, first.lockToken);
    await client.complete(second);
    await client.close();
  });
});

describe('messages over MQTT', () => {
  test('those that waited and those that come', async () => {
    const device = await here.hub1.createDevice(unique());
    await here.hub1.send(device.deviceId, 'waited', {
      'iothub-messageid': 'm-1', 'iothub-correlationid': 'c-1', 'iothub-userid': 'u-1', 'iothub-ack': 'full',
      'iothub-contenttype': 'text/plain', 'iothub-contentencoding': 'utf-8', 'iothub-app-colour': 'blue & red',
    });
    const sdk = await devices.withKey(here.hub1.deviceConnectionString(device));
    const messages = [];
    sdk.client.on('message', (message) => {
      messages.push(message);
      sdk.client.complete(message, () => sdk.emit('message'));
    });
    const [first] = await devices.until(sdk, 'message', () => messages.length >= 1 && messages, 'the message that waited');
    assert.equal(first.getData().toString(), 'waited');
    assert.deepEqual(
      [first.messageId, first.correlationId, first.userId, first.contentType, first.contentEncoding],
      ['m-1', 'c-1', 'u-1', 'text/plain', 'utf-8'],
    );
    assert.equal(first.to, `/devices/${device.deviceId}/messages/deviceBound`);
    assert.equal(first.properties.getValue('colour'), 'blue & red');
    for (let number = 0; number < 30; number += 1) {
      await here.hub1.send(device.deviceId, String(number));
    }
    await devices.until(sdk, 'message', () => messages.length >= 31, '30 messages');
    assert.deepEqual(messages.slice(1).map((message) => message.getData().toString()), Array.from({ length: 30 }, (_, n) => String(n)));
    // The SDK's library acknowledges by itself.
    assert.ok(devices.cutConnections(8883) >= 1);
    await here.hub1.send(device.deviceId, 'after');
    await devices.until(sdk, 'message', () => messages.length >= 32, 'the message after the reconnection');
    assert.equal(messages.at(-1).getData().toString(), 'after');
    await sdk.close();
  });
});
