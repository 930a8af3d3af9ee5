"""Keys of policies other than the owner's."""

from harness.rest import HubRest
from harness.secrets import remember
from harness.server import Nave


def policy_key(nave: Nave, hub: HubRest, policy: str) -> str:
    if policy == hub.endpoint.policy:
        return hub.endpoint.key
    raise NotImplementedError(policy)
