"""The service side's REST, without an SDK: for set-up, and for what no SDK shows (headers, bodies of errors)."""

import time
from urllib.parse import quote

import requests

from harness import sas
from harness.secrets import new_key, remember
from harness.server import Endpoint

HUB_VERSION = "2021-04-12"
DPS_VERSION = "2021-10-01"
DPS_DEVICE_VERSION = "2019-03-31"
TIMEOUT = 60


class Service:
    """Requests to a hub or to the provisioning service, signed by a policy unless told otherwise."""

    version = ""

    def __init__(self, endpoint: Endpoint, ca: str):
        self.endpoint = endpoint
        self.ca = ca
        self.session = requests.Session()

    def request(self, method: str, path: str, *, headers: dict | None = None, token: str | None = None,
                version: str | None = "", params: dict | None = None, host: str | None = None, **kwargs):
        """`token=""` sends none; `version=None` sends none."""
        host = host or self.endpoint.host
        if token is None:
            token = sas.token(host, self.endpoint.key, self.endpoint.policy)
        headers = {**({"Authorization": token} if token else {}), **(headers or {})}
        params = dict(params or {})
        if version is not None:
            params["api-version"] = version or self.version
        kwargs.setdefault("timeout", TIMEOUT)
        return self.session.request(method, f"https://{host}{path}", headers=headers, params=params, verify=self.ca, **kwargs)

    def ok(self, method: str, path: str, **kwargs):
        response = self.request(method, path, **kwargs)
        assert response.status_code in (200, 204), f"{method} {path}: {response.status_code} {response.text}"
        return response


def segment(identifier: str) -> str:
    return quote(identifier, safe="")


class HubRest(Service):
    version = HUB_VERSION

    def create_device(self, device_id: str, **fields) -> dict:
        """A device with fresh keys, unless `authentication` is given."""
        if "authentication" not in fields:
            keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
            fields["authentication"] = {"type": "sas", "symmetricKey": keys}
        body = {"deviceId": device_id, **fields}
        device = self.ok("PUT", f"/devices/{segment(device_id)}", json=body).json()
        self._remember(device)
        return device

    def update_device(self, device: dict, etag: str = "*") -> dict:
        path = f"/devices/{segment(device['deviceId'])}"
        updated = self.ok("PUT", path, json=device, headers={"If-Match": etag}).json()
        self._remember(updated)
        return updated

    def device(self, device_id: str) -> dict:
        device = self.ok("GET", f"/devices/{segment(device_id)}").json()
        self._remember(device)
        return device

    def delete_device(self, device_id: str) -> None:
        self.ok("DELETE", f"/devices/{segment(device_id)}", headers={"If-Match": "*"})

    def exists(self, device_id: str) -> bool:
        status = self.request("GET", f"/devices/{segment(device_id)}").status_code
        assert status in (200, 404), status
        return status == 200

    def create_module(self, device_id: str, module_id: str, **fields) -> dict:
        """A module with fresh keys, unless `authentication` is given."""
        if "authentication" not in fields:
            keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
            fields["authentication"] = {"type": "sas", "symmetricKey": keys}
        body = {"deviceId": device_id, "moduleId": module_id, **fields}
        module = self.ok("PUT", f"{self._module_path(device_id, module_id)}", json=body).json()
        self._remember(module)
        return module

    def module(self, device_id: str, module_id: str) -> dict:
        module = self.ok("GET", self._module_path(device_id, module_id)).json()
        self._remember(module)
        return module

    def delete_module(self, device_id: str, module_id: str) -> None:
        self.ok("DELETE", self._module_path(device_id, module_id), headers={"If-Match": "*"})

    def module_connection_string(self, module: dict, which: str = "primaryKey") -> str:
        key = module["authentication"]["symmetricKey"][which]
        names = f"DeviceId={module['deviceId']};ModuleId={module['moduleId']}"
        return f"HostName={self.endpoint.host};{names};SharedAccessKey={key}"

    @staticmethod
    def _module_path(device_id: str, module_id: str) -> str:
        return f"/devices/{segment(device_id)}/modules/{segment(module_id)}"

    def twin(self, device_id: str) -> dict:
        return self.ok("GET", f"/twins/{segment(device_id)}").json()

    def patch_twin(self, device_id: str, patch: dict, **kwargs) -> dict:
        return self.ok("PATCH", f"/twins/{segment(device_id)}", json=patch, **kwargs).json()

    def replace_twin(self, device_id: str, twin: dict, **kwargs) -> dict:
        return self.ok("PUT", f"/twins/{segment(device_id)}", json=twin, **kwargs).json()

    def invoke(self, device_id: str, name: str, **fields):
        """The bare response."""
        return self.request("POST", f"/twins/{segment(device_id)}/methods", json={"methodName": name, **fields})

    def send(self, device_id: str, body: bytes | str = b"", **headers) -> str:
        """A cloud-to-device message; `ack="full"` is the header `iothub-ack`. Its id."""
        fields = {f"iothub-{name.replace('_', '-')}": value for name, value in headers.items()}
        response = self.ok("POST", f"/devices/{segment(device_id)}/messages/deviceBound", data=body, headers=fields)
        assert response.status_code == 204
        return response.headers["iothub-messageid"]

    def queued(self, device_id: str) -> int:
        return self.device(device_id)["cloudToDeviceMessageCount"]

    def wait_queued(self, device_id: str, count: int, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while (now := self.queued(device_id)) != count:
            assert time.monotonic() < deadline, f"{now} messages wait for {device_id}, not {count}"
            time.sleep(0.05)

    def feedback(self) -> list[dict]:
        """All feedback there is, completed."""
        records = []
        while (response := self.ok("GET", "/messages/serviceBound/feedback")).status_code == 200:
            records += response.json()
            token = response.headers["ETag"].strip('"')
            self.ok("DELETE", f"/messages/serviceBound/feedback/{token}")
        return records

    def wait_for(self, device_id: str, state: str, seconds: float = 30) -> dict:
        """Until the hub says that the device is `Connected` or `Disconnected`."""
        deadline = time.monotonic() + seconds
        while True:
            device = self.device(device_id)
            if device["connectionState"] == state:
                return device
            assert time.monotonic() < deadline, f"{device_id} is {device['connectionState']}, not {state}"
            time.sleep(0.05)

    def device_connection_string(self, device: dict, which: str = "primaryKey") -> str:
        key = device["authentication"]["symmetricKey"][which]
        return f"HostName={self.endpoint.host};DeviceId={device['deviceId']};SharedAccessKey={key}"

    @staticmethod
    def _remember(device: dict) -> None:
        for key in ((device.get("authentication") or {}).get("symmetricKey") or {}).values():
            remember(key)


class DpsRest(Service):
    version = DPS_VERSION

    def put_enrollment(self, registration_id: str, attestation: dict, **fields) -> dict:
        etag = fields.pop("if_match", None)
        body = {"registrationId": registration_id, "attestation": attestation, **fields}
        headers = {"If-Match": etag} if etag else {}
        return self.ok("PUT", f"/enrollments/{segment(registration_id)}", json=body, headers=headers).json()

    def put_group(self, group_id: str, attestation: dict, **fields) -> dict:
        etag = fields.pop("if_match", None)
        body = {"enrollmentGroupId": group_id, "attestation": attestation, **fields}
        headers = {"If-Match": etag} if etag else {}
        return self.ok("PUT", f"/enrollmentGroups/{segment(group_id)}", json=body, headers=headers).json()

    def enrollment(self, registration_id: str) -> dict:
        return self.ok("GET", f"/enrollments/{segment(registration_id)}").json()

    def symmetric_keys(self, kind: str, identifier: str) -> tuple[str, str]:
        """The keys of an individual enrollment (`enrollments`) or a group (`enrollmentGroups`)."""
        mechanism = self.ok("POST", f"/{kind}/{segment(identifier)}/attestationmechanism").json()
        keys = mechanism["symmetricKey"]
        return remember(keys["primaryKey"]), remember(keys["secondaryKey"])

    def registration(self, registration_id: str) -> dict:
        return self.ok("GET", f"/registrations/{segment(registration_id)}").json()

    def device_request(self, method: str, registration_id: str, tail: str, key: str | None, cert=None, **kwargs):
        """One request of a device, with a token made from `key` or with a certificate."""
        scope = self.endpoint.id_scope
        token = "" if key is None else sas.token(f"{scope}/registrations/{registration_id}", key, "registration")
        path = f"/{scope}/registrations/{segment(registration_id)}{tail}"
        kwargs.setdefault("token", token)
        if cert:
            # A session would go on using a connection that another certificate opened.
            fresh = DpsRest(self.endpoint, self.ca)
            return fresh.request(method, path, version=DPS_DEVICE_VERSION, cert=cert, **kwargs)
        return self.request(method, path, version=DPS_DEVICE_VERSION, **kwargs)

    def register(self, registration_id: str, key: str | None = None, cert=None, payload=None) -> dict:
        """A registration over HTTPS from start to end: the last answer."""
        body = {"registrationId": registration_id} | ({} if payload is None else {"payload": payload})
        answer = self.device_request("PUT", registration_id, "/register", key, cert, json=body)
        deadline = time.monotonic() + 60
        while answer.status_code == 202:
            assert time.monotonic() < deadline, f"still assigning: {answer.text}"
            time.sleep(0.1)
            operation = answer.json()["operationId"]
            answer = self.device_request("GET", registration_id, f"/operations/{segment(operation)}", key, cert)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        return answer.json()
