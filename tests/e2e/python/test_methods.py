"""Direct methods."""

import json
import threading

import pytest
from azure.iot.device import MethodResponse
from azure.iot.hub.models import CloudToDeviceMethod
from msrest.exceptions import HttpOperationError


def call(registry, device, name="reboot", payload=None, response_timeout=30, connect_timeout=None):
    request = CloudToDeviceMethod(method_name=name, payload=payload, response_timeout_in_seconds=response_timeout,
                                  connect_timeout_in_seconds=connect_timeout)
    return registry.invoke_device_method(device["deviceId"], request)


def nested(response) -> dict:
    """The error inside the error, as method calls answer it."""
    body = response.json()
    assert body["ExceptionMessage"] == ""
    return json.loads(body["Message"])


def test_call_and_answer(registry, device, connect):
    sdk = connect(device, methods=True)
    sdk.answer = lambda request: (201, {"was": request.payload, "text": "grüße 世界"})
    result = call(registry, device, "getStatus", {"a": [1, {"b": None}]})
    assert result.status == 201
    assert result.payload == {"was": {"a": [1, {"b": None}]}, "text": "grüße 世界"}
    request = sdk.next_method()
    assert request.name == "getStatus"
    assert request.payload == {"a": [1, {"b": None}]}


@pytest.mark.parametrize("payload", [{}, [], [1, "a"], "text", "", 0, 1.5, True, False, None])
def test_payload_is_any_json_value(hub1, device, connect, payload):
    sdk = connect(device, methods=True)
    sdk.answer = lambda request: (200, request.payload)
    response = hub1.invoke(device["deviceId"], "echo", payload=payload)
    assert response.status_code == 200, response.text
    assert response.json() == {"status": 200, "payload": payload}
    assert sdk.next_method().payload == payload


def test_call_without_payload(hub1, device, connect):
    sdk = connect(device, methods=True)
    sdk.answer = lambda request: (200, None)
    response = hub1.invoke(device["deviceId"], "ping")
    assert response.json() == {"status": 200, "payload": None}
    assert sdk.next_method().payload is None


@pytest.mark.parametrize("status", [0, 200, 404, 500, 99999, 2147483647])
def test_status_is_the_devices_own(hub1, device, connect, status):
    sdk = connect(device, methods=True)
    sdk.answer = lambda request: (status, {"s": status})
    response = hub1.invoke(device["deviceId"], "anything")
    assert response.status_code == 200
    assert response.json() == {"status": status, "payload": {"s": status}}


def test_large_payload_both_ways(hub1, device, connect):
    text = "x" * (127 * 1024)
    sdk = connect(device, methods=True)
    sdk.answer = lambda request: (200, request.payload)
    assert hub1.invoke(device["deviceId"], "echo", payload=text).json() == {"status": 200, "payload": text}


def test_payload_over_the_limit_is_refused(hub1, device, connect):
    connect(device, methods=True)
    response = hub1.invoke(device["deviceId"], "echo", payload="x" * (129 * 1024))
    assert response.status_code in (400, 413), response.text
    assert response.headers["iothub-errorcode"]


def test_several_calls_at_once_are_told_apart(hub1, device, connect):
    sdk = connect(device)
    waiting = []
    everybody = threading.Event()

    def handler(request):
        waiting.append(request)
        if len(waiting) == 5:
            everybody.set()

    sdk.client.on_method_request_received = handler
    results = {}
    callers = [
        threading.Thread(target=lambda n=n: results.update({n: hub1.__class__(hub1.endpoint, hub1.ca).invoke(
            device["deviceId"], "work", payload=n).json()}))
        for n in range(5)
    ]
    for caller in callers:
        caller.start()
    assert everybody.wait(30)
    for request in reversed(waiting):
            sdk.client.send_method_response(
            MethodResponse.create_from_method_request(request, 200 + request.payload, {"n": request.payload}))
    for caller in callers:
        caller.join()
    assert results == {n: {"status": 200 + n, "payload": {"n": n}} for n in range(5)}


def test_no_answer_in_time(registry, device, connect):
    sdk = connect(device, methods=True)
    sdk.answer = lambda request: None
    with pytest.raises(HttpOperationError) as failure:
        call(registry, device, response_timeout=5)
    response = failure.value.response
    assert response.status_code == 504
    assert response.headers["iothub-errorcode"] == "GatewayTimeout"
    error = nested(response)
    assert error["errorCode"] == 504101
    assert error["message"] == "Timed out waiting for the response from device."
    assert sdk.next_method().name == "reboot"


def test_late_answer_is_dropped(hub1, device, connect):
    sdk = connect(device, methods=True)
    sdk.answer = lambda request: None
    assert hub1.invoke(device["deviceId"], "slow", responseTimeoutInSeconds=5).status_code == 504
    late = sdk.next_method()
    sdk.client.send_method_response(MethodResponse.create_from_method_request(late, 200, {"late": True}))
    sdk.answer = lambda request: (200, {"second": True})
    assert hub1.invoke(device["deviceId"], "slow").json()["payload"] == {"second": True}


def test_offline_device(registry, device):
    with pytest.raises(HttpOperationError) as failure:
        call(registry, device)
    response = failure.value.response
    assert response.status_code == 404
    assert response.headers["iothub-errorcode"] == "DeviceNotOnline"
    error = nested(response)
    assert error["errorCode"] == 404103
    assert error["message"] == "Timed out waiting for device to connect."
    assert error["info"] == {"timeout": "00:00:00"}
    assert error["trackingId"] and error["timestampUtc"].endswith("Z")


def test_connected_device_without_methods_is_offline_for_them(hub1, device, connect):
    connect(device)
    response = hub1.invoke(device["deviceId"], "reboot")
    assert response.status_code == 404
    assert response.headers["iothub-errorcode"] == "DeviceNotOnline"


def test_connect_timeout_waits_for_the_device(hub1, device, connect):
    result = {}
    caller = threading.Thread(target=lambda: result.update(response=hub1.invoke(
        device["deviceId"], "early", payload={"n": 1}, connectTimeoutInSeconds=60, responseTimeoutInSeconds=60)))
    caller.start()
    caller.join(1)
    assert caller.is_alive(), f"it did not wait: {result['response'].text}"
    sdk = connect(device, methods=True)
    caller.join(60)
    assert result["response"].json() == {"status": 200, "payload": {"echo": {"n": 1}}}
    assert sdk.next_method().name == "early"


def test_connect_timeout_ends(hub1, device):
    response = hub1.invoke(device["deviceId"], "never", connectTimeoutInSeconds=1, responseTimeoutInSeconds=5)
    assert response.status_code == 404
    assert response.headers["iothub-errorcode"] == "DeviceNotOnline"
    assert nested(response)["info"] == {"timeout": "00:00:01"}


def test_unknown_device(hub1, unique):
    response = hub1.invoke(unique(), "reboot")
    assert response.status_code == 404
    assert response.headers["iothub-errorcode"] == "DeviceNotFound"
    assert "404001" in response.text


@pytest.mark.parametrize("fields", [
    {"responseTimeoutInSeconds": 4},
    {"responseTimeoutInSeconds": 301},
    {"connectTimeoutInSeconds": 301, "responseTimeoutInSeconds": 300},
    {"connectTimeoutInSeconds": 20, "responseTimeoutInSeconds": 10},
    {"connectTimeoutInSeconds": -1},
    {"methodName": "no spaces"},
    {"methodName": "x" * 101},
    {"methodName": ""},
    {"methodName": None},
], ids=str)
def test_bad_calls_are_refused(hub1, device, connect, fields):
    connect(device, methods=True)
    response = hub1.request("POST", f"/twins/{device['deviceId']}/methods",
                            json={"methodName": "reboot", "payload": None, **fields})
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"]


def test_call_ends_when_the_device_goes_away(hub1, device, connect):
    sdk = connect(device)
    sdk.client.on_method_request_received = lambda request: sdk.methods.put(request)
    result = {}
    caller = threading.Thread(target=lambda: result.update(response=hub1.invoke(
        device["deviceId"], "die", responseTimeoutInSeconds=10)))
    caller.start()
    sdk.next_method()
    sdk.client.disconnect()
    caller.join(60)
    # At once, as the device is gone, or when the time is up: both are documented.
    assert result["response"].status_code in (404, 504), result["response"].text
