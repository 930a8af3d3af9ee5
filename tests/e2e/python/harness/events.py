"""What back ends read: the stream of device-to-cloud messages, as a list that grows."""

import base64
import contextlib
import json
import threading
import time
from dataclasses import dataclass

import requests

from harness import sas
from harness.server import Endpoint

MOST_PARTITIONS = 32


@dataclass(frozen=True)
class Event:
    """One message as a back end gets it."""

    partition: int
    offset: str
    sequence_number: int
    enqueued_time: str
    device_id: str
    properties: dict
    system: dict
    body: bytes
    module_id: str | None = None

    @staticmethod
    def parse(line: bytes) -> "Event":
        item = json.loads(line)
        assert set(item) >= {"partition", "offset", "sequenceNumber", "enqueuedTime", "deviceId", "properties",
                             "systemProperties", "body"}, item
        return Event(
            int(item["partition"]), item["offset"], item["sequenceNumber"], item["enqueuedTime"], item["deviceId"],
            item["properties"], item["systemProperties"], base64.b64decode(item["body"], validate=True),
            item.get("moduleId"),
        )


def open_stream(endpoint: Endpoint, ca: str, partition: int, start: str = "earliest", timeout: float = 30, **kwargs):
    """The response of one partition, not yet read."""
    token = kwargs.pop("token", None)
    if token is None:
        token = sas.token(endpoint.host, endpoint.key, endpoint.policy)
    params = {"consumerGroup": "$Default", "partition": str(partition), "from": start, "api-version": "2021-04-12"}
    params.update(kwargs.pop("params", {}))
    headers = {"Authorization": token} if token else {}
    return requests.get(f"https://{endpoint.host}/events", params=params, headers=headers, verify=ca, stream=True,
                        timeout=timeout, **kwargs)


def read_lines(response):
    """Events as they come."""
    rest = b""
    for chunk in response.iter_content(chunk_size=None):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (Event.parse(line) for line in lines if line.strip())


class Feed:
    """All partitions of a hub, read in the background from the beginning on. It survives restarts of the hub."""

    def __init__(self, endpoint: Endpoint, ca: str):
        self._endpoint, self._ca = endpoint, ca
        self._changed = threading.Condition()
        self._events: dict[tuple[int, int], Event] = {}
        self._closed = False
        self._responses: dict[int, requests.Response] = {}
        self.partitions = 0
        for partition in range(MOST_PARTITIONS):
            response = open_stream(endpoint, ca, partition, timeout=(10, None))
            if response.status_code != 200:
                assert partition > 0, f"no partition can be read: {response.status_code} {response.text}"
                response.close()
                break
            self.partitions += 1
            threading.Thread(target=self._read, args=(partition, response), daemon=True).start()

    def _read(self, partition: int, response) -> None:
        position = "earliest"
        while not self._closed:
            try:
                if response is None:
                    response = open_stream(self._endpoint, self._ca, partition, position, timeout=(10, None))
                    if response.status_code != 200:
                        raise requests.ConnectionError(response.text)
                self._responses[partition] = response
                for event in read_lines(response):
                    position = event.offset
                    with self._changed:
                        self._events[(event.partition, event.sequence_number)] = event
                        self._changed.notify_all()
            except (requests.RequestException, OSError, ValueError):
                # The hub restarts, or the feed is closed.
                time.sleep(0.2)
            if response is not None:
                response.close()
            response = None

    def of(self, device_id: str) -> list[Event]:
        """What has come from a device, in order."""
        with self._changed:
            mine = [event for event in self._events.values() if event.device_id == device_id]
        return sorted(mine, key=lambda event: event.sequence_number)

    def wait(self, device_id: str, count: int = 1, seconds: float = 30) -> list[Event]:
        """Until at least `count` messages of a device are there."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                mine = [event for event in self._events.values() if event.device_id == device_id]
                if len(mine) >= count:
                    return sorted(mine, key=lambda event: event.sequence_number)
                left = deadline - time.monotonic()
                assert left > 0, f"{len(mine)} of {count} messages of {device_id} after {seconds} s: {mine}"
                self._changed.wait(left)

    def close(self) -> None:
        self._closed = True
        for response in list(self._responses.values()):
            # Wakes the reader, who closes it; closing it here would wait for the reader. One that ended has no socket.
            with contextlib.suppress(ValueError):
                response.raw.shutdown()
