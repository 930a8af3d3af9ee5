"""Chooses the hub by the organisation in the device's certificate.

The organisation is O= of the verified certificate's subject. A hub belongs to it if its label `organisation` or the first
part of its name says so, in any case. A device stays where it is while that hub belongs to its organisation, and gets the
organisation as a tag. A device without a certificate, or of an unknown organisation, is refused.
"""

import json
from typing import Any, Optional

from wit_world import exports
from wit_world.exports import policy
from wit_world.exports.policy import Assignment, Hub, Outcome_Assign, Outcome_Refuse, Request


class Policy(exports.Policy):
    """What the world's interface `policy` exports; componentize-py looks for this name."""

    def allocate(self, r: Request) -> policy.Outcome:
        return decide(r)


def decide(request: Request) -> policy.Outcome:
    """The decision. It depends on nothing but the request, so it is tested like any other function."""
    certificate = fact(request.facts, "x509")
    if certificate is None:
        return Outcome_Refuse("this enrollment is for devices with a certificate")
    organisation = subject_part(certificate["subjectName"], "O")
    if organisation is None:
        return Outcome_Refuse("the certificate's subject names no organisation (O=)")
    hubs = [hub for hub in request.hubs if hub.weight > 0 and belongs_to(hub, organisation)]
    if not hubs:
        return Outcome_Refuse(f"no hub belongs to the organisation {organisation!r}")
    now = request.current.hub.lower() if request.current else None
    hub = next((hub for hub in hubs if hub.name.lower() == now), hubs[0])
    twin = {"tags": {"organisation": organisation}}
    return Outcome_Assign(Assignment(hub.name, None, json.dumps(twin), None))


def belongs_to(hub: Hub, organisation: str) -> bool:
    names = [(fact(hub.facts, "labels") or {}).get("organisation", ""), hub.name.split(".")[0]]
    return organisation.lower() in [name.lower() for name in names]


def fact(facts: list[policy.Fact], name: str) -> Any:
    """The value of a fact, or None if the host does not know it."""
    return next((json.loads(fact.json) for fact in facts if fact.name == name), None)


def subject_part(subject: str, attribute: str) -> Optional[str]:
    """The value of one attribute of a distinguished name such as `CN=pump-1, O=Example\\, Inc., C=DE`."""
    parts, escaped = [""], False
    for character in subject:
        if escaped:
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in ",+":
            parts.append("")
        else:
            parts[-1] += character
    for part in parts:
        name, equals, value = part.partition("=")
        if equals and name.strip().upper() == attribute:
            return value.strip()
    return None
