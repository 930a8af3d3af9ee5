"""The OpenAPI document is one, and says what is served."""

import requests
from openapi_spec_validator import OpenAPIV31SpecValidator


def test_the_document_is_valid(nave, hub1, dps):
    documents = [requests.get(f"https://{end.endpoint.host}/openapi.json", verify=nave.ca, timeout=30)
                 for end in (hub1, dps)]
    for answer in documents:
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"].startswith("application/json")
    document = documents[0].json()
    assert document == documents[1].json()
    OpenAPIV31SpecValidator(document).validate()
    assert set(document["paths"]["/devices/{deviceId}"]) >= {"get", "put", "delete", "parameters"}
