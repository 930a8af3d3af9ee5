"""A control device watches over every test of this folder: what a bad client does concerns nobody else."""

import itertools

import pytest

from raw.client import PUBACK, Hub, Provisioning, events, publish

_identifiers = itertools.cycle(range(1, 60000))


@pytest.fixture
def hub(hub1) -> Hub:
    return Hub(hub1)


@pytest.fixture
def provisioning(dps) -> Provisioning:
    return Provisioning(dps)


@pytest.fixture
def control(hub, hub1, unique):
    """Call it: the control device is still connected and works."""
    device = hub1.create_device(unique("-control"))
    client = hub.log_in(device)

    def check():
        identifier = next(_identifiers)
        client.send(publish(events(device), b"still here", 1, identifier))
        assert client.expect(PUBACK).identifier == identifier

    check()
    yield check
    check()
    client.disconnect()
