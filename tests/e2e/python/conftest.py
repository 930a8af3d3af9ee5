"""One hub for the whole run, and what each test needs from it."""

import itertools
import json
import os
import re

import pytest
import requests
from azure.iot.hub import IoTHubRegistryManager

from harness import devices
from harness.events import Feed
from harness.rest import DpsRest, HubRest
from harness.server import REPOSITORY, HarnessError, Nave

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items):
    """What looks back at the whole run comes last."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
    if os.environ.get("NAVE_HOST") == "spin":
        differences = json.loads((REPOSITORY / "tests/spin-host/differences.json").read_text())["python"]
        for item in items:
            reason = differences.get(f"{item.path.name}::{item.originalname}")
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_configure(config):
    config.addinivalue_line("markers", "last: runs after everything else")


@pytest.fixture(scope="session")
def nave():
    hub = Nave()
    try:
        hub.start()
    except HarnessError as error:
        # Every test would fail with the same words: stop at once.
        pytest.exit(str(error), returncode=3)
    # The service SDK trusts what `requests` trusts.
    os.environ["REQUESTS_CA_BUNDLE"] = hub.ca
    yield hub
    try:
        if hub.is_running():
            hub.stop()
    finally:
        hub.remove()


@pytest.fixture(scope="session")
def hub1(nave) -> HubRest:
    return HubRest(nave.hub("hub1"), nave.ca)


@pytest.fixture(scope="session")
def hub2(nave) -> HubRest:
    return HubRest(nave.hub("hub2"), nave.ca)


@pytest.fixture(scope="session")
def hubs(hub1, hub2) -> dict[str, HubRest]:
    """By the name that DPS assigns."""
    return {rest.endpoint.host: rest for rest in (hub1, hub2)}


@pytest.fixture(scope="session")
def dps(nave) -> DpsRest:
    return DpsRest(nave.provisioning(), nave.ca)


@pytest.fixture(scope="session")
def registry(nave, hub1) -> IoTHubRegistryManager:
    """The service SDK on the first hub."""
    return IoTHubRegistryManager.from_connection_string(hub1.endpoint.service_connection_string())


@pytest.fixture(scope="session")
def feed(nave, hub1):
    """The device-to-cloud messages of the first hub."""
    reader = Feed(hub1.endpoint, nave.ca)
    yield reader
    reader.close()


@pytest.fixture(scope="session")
def feed2(nave, hub2):
    """The messages and events of the second hub, which routes all events."""
    reader = Feed(hub2.endpoint, nave.ca)
    yield reader
    reader.close()


@pytest.fixture
def unique(request):
    """Ids that no other test uses."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[5:45].strip("-")
    return lambda suffix="": f"{stem}-{next(_numbers)}{suffix}"


@pytest.fixture
def connect(nave, hub1):
    """Connects devices with the SDK, and disconnects them after the test."""
    opened: list[devices.Device] = []

    def connect(device: dict, hub: HubRest = hub1, key: str = "primaryKey", methods=False, patches=False, **options):
        client = devices.from_connection_string(hub.device_connection_string(device, key), nave.ca, **options)
        return adopt(client, methods=methods, patches=patches)

    def adopt(client, **features):
        try:
            device = devices.Device(client, **features)
        except Exception:
            client.shutdown()
            raise
        opened.append(device)
        return device

    connect.adopt = adopt
    yield connect
    for device in opened:
        try:
            device.close()
        except Exception as error:  # the test's own failure matters more
            print(f"while closing a device: {error!r}")


@pytest.fixture
def device(hub1, unique):
    """A new device of the first hub."""
    return hub1.create_device(unique())


@pytest.fixture(autouse=True)
def hub_survives(request):
    """Whatever a test does to it, the hub goes on working."""
    yield
    if "nave" in request.fixturenames:
        hub = request.getfixturevalue("nave")
        assert hub.is_running(), f"the hub is gone:\n{hub.log_tail()}"


@pytest.fixture
def new_session():
    """A session that shares no connection with others."""
    with requests.Session() as session:
        yield session
