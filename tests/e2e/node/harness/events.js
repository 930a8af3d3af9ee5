'use strict';

// What back ends read: the device-to-cloud messages of a hub, as a list that grows.

const assert = require('node:assert/strict');
const { EventEmitter, once } = require('node:events');
const https = require('node:https');
const { setTimeout: sleep } = require('node:timers/promises');
const { sasToken } = require('./rest');

const MOST_PARTITIONS = 32;

function openStream({ host, key, policy }, partition) {
  return new Promise((resolve, reject) => {
    const path = `/events?consumerGroup=%24Default&partition=${partition}&from=earliest&api-version=2021-04-12`;
    const outgoing = https.get({ host, path, headers: { Authorization: sasToken(host, key, policy) }, agent: false }, resolve);
    outgoing.on('error', reject);
  });
}

class Feed extends EventEmitter {
  /** Reads all partitions from the beginning on, also after restarts of the hub. */
  static async open(endpoint) {
    const feed = new Feed();
    feed.endpoint = endpoint;
    feed.events = new Map();
    feed.responses = new Map();
    feed.closed = false;
    feed.setMaxListeners(0);
    for (let partition = 0; partition < MOST_PARTITIONS; partition += 1) {
      const response = await openStream(endpoint, partition);
      if (response.statusCode !== 200) {
        assert.ok(partition > 0, `no partition can be read: ${response.statusCode}`);
        response.destroy();
        break;
      }
      feed.follow(partition, response);
    }
    return feed;
  }

  async follow(partition, first) {
    let response = first;
    while (!this.closed) {
      try {
        response ??= await openStream(this.endpoint, partition);
        if (response.statusCode === 200) {
          this.responses.set(partition, response);
          await this.read(response);
        }
      } catch {
        // The hub restarts, or the feed is closed.
      }
      response?.destroy();
      response = undefined;
      await sleep(200, undefined, { ref: false });
    }
  }

  async read(response) {
    let rest = '';
    response.setEncoding('utf8');
    for await (const chunk of response) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      for (const line of lines.filter((text) => text.trim())) {
        const event = JSON.parse(line);
        event.body = Buffer.from(event.body, 'base64');
        this.events.set(`${event.partition}/${event.sequenceNumber}`, event);
        this.emit('event');
      }
    }
  }

  of(deviceId) {
    return [...this.events.values()].filter((event) => event.deviceId === deviceId)
      .sort((a, b) => a.sequenceNumber - b.sequenceNumber);
  }

  async wait(deviceId, count = 1, milliseconds = 30_000) {
    const signal = AbortSignal.timeout(milliseconds);
    for (;;) {
      const mine = this.of(deviceId);
      if (mine.length >= count) {
        return mine;
      }
      try {
        await once(this, 'event', { signal });
      } catch {
        assert.fail(`${mine.length} of ${count} messages of ${deviceId} after ${milliseconds} ms`);
      }
    }
  }

  close() {
    this.closed = true;
    for (const response of this.responses.values()) {
      response.destroy();
    }
  }
}

module.exports = { Feed };
