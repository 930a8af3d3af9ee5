'use strict';

const { here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { Message } = require('azure-iot-device');
const devices = require('./harness/devices');

describe('telemetry', () => {
  async function connected() {
    const device = await here.hub1.createDevice(unique());
    return [device, await devices.withKey(here.hub1.deviceConnectionString(device))];
  }

  test('a message arrives with everything that the SDK can set', async () => {
    const [device, sdk] = await connected();
    const body = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, n) => n)), Buffer.from('grüße 世界')]);
    const message = new Message(body);
    message.messageId = "id-1:.+%_#*?!(),=@;$'";
    message.correlationId = 'corr/1&2=3';
    message.userId = 'user 1';
    message.contentType = 'application/octet-stream';
    message.contentEncoding = 'utf-8';
    const properties = { plain: 'value', 'two words': 'a b', signs: "&=%/?#+$!'()*", grüße: '世界' };
    for (const [name, value] of Object.entries(properties)) {
      message.properties.add(name, value);
    }
    await sdk.client.sendEvent(message);
    const [event] = await here.feed.wait(device.deviceId);
    assert.deepEqual(event.body, body);
    assert.deepEqual(event.properties, properties);
    const { systemProperties: system } = event;
    assert.equal(system['message-id'], message.messageId);
    assert.equal(system['correlation-id'], message.correlationId);
    assert.equal(system['user-id'], message.userId);
    assert.equal(system['content-type'], message.contentType);
    assert.equal(system['content-encoding'], message.contentEncoding);
    assert.equal(system['iothub-connection-device-id'], device.deviceId);
    assert.equal(system['iothub-connection-auth-generation-id'], device.generationId);
    await sdk.close();
  });

  test('messages keep their order', async () => {
    const [device, sdk] = await connected();
    await Promise.all(Array.from({ length: 100 }, (_, n) => sdk.client.sendEvent(new Message(String(n)))));
    const events = await here.feed.wait(device.deviceId, 100);
    assert.deepEqual(events.map((event) => event.body.toString()), Array.from({ length: 100 }, (_, n) => String(n)));
    await sdk.close();
  });

  test('an interface that a message belongs to', async () => {
    const [device, sdk] = await connected();
    const message = new Message('{"t":1}');
    message.properties.add('dt-subject', 'thermostat1');
    await sdk.client.sendEvent(message);
    const [event] = await here.feed.wait(device.deviceId);
    assert.equal(event.systemProperties['dt-subject'], 'thermostat1');
    assert.deepEqual(event.properties, {});
    await sdk.close();
  });
});
