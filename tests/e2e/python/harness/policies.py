"""Keys of policies other than the owner's."""

import json

from harness.rest import HubRest
from harness.secrets import remember
from harness.server import Nave


def policy_key(nave: Nave, hub: HubRest, policy: str) -> str:
    """The primary key of one of a hub's five policies, from where the hub keeps what it generated."""
    settings = json.loads((nave.data_dir / "settings.json").read_text())
    found = {entry["name"]: entry for entry in settings["hubPolicies"][hub.endpoint.name]}
    for entry in found.values():
        remember(entry["primaryKey"])
        remember(entry["secondaryKey"])
    return found[policy]["primaryKey"]
