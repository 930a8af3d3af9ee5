"""The operator's own interface: certificate authorities."""

import requests

from harness.server import Nave


class Admin:
    """Requests to the admin API, which the ready file names with its token."""

    def __init__(self, nave: Nave):
        self._nave = nave

    def request(self, method: str, path: str, token: str | None = None, **kwargs) -> requests.Response:
        admin = self._nave.connection["admin"]
        token = admin["token"] if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.request(method, admin["url"] + path, headers=headers, timeout=30, **kwargs)

    def add_authority(self, owner: str, name: str, certificate: str, verified: bool = True) -> dict:
        """`owner` is `hubs/NAME` or `provisioning`."""
        body = {"name": name, "certificate": certificate, "verified": verified}
        response = self.request("POST", f"/admin/{owner}/authorities", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def verify_authority(self, owner: str, name: str, proof: str) -> requests.Response:
        return self.request("POST", f"/admin/{owner}/authorities/{name}/verify", json={"certificate": proof})
