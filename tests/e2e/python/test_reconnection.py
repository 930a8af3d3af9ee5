"""Lost connections, restarts, and what is caught up afterwards."""

from harness.devices import connections_to, cut_connections


def test_client_comes_back_after_a_lost_connection(hub1, feed, device, connect):
    others = connections_to(8883)
    sdk = connect(device, methods=True, patches=True)
    assert cut_connections(8883, keep=others) == 1
    sdk.wait_connected(False)
    sdk.wait_connected(True)
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"after": 1}}})
    assert sdk.wait_patch(lambda patch: "after" in patch)["after"] == 1
    assert hub1.invoke(device["deviceId"], "hello", connectTimeoutInSeconds=20).json()["status"] == 200
    sdk.client.send_message("back")
    assert feed.wait(device["deviceId"])[-1].body == b"back"


def test_desired_changes_while_offline_are_caught_up(hub1, device, connect):
    sdk = connect(device, patches=True)
    # Lets the SDK subscribe to answers, which it expects to be live again when it is back.
    assert sdk.client.get_twin()["desired"] == {"$version": 1}
    sdk.client.disconnect()
    hub1.wait_for(device["deviceId"], "Disconnected")
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"a": 1}}})
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"b": 2}}})
    sdk.client.connect()
    # The SDK reads the twin when it is back and passes on what it missed.
    assert sdk.next_patch() == {"a": 1, "b": 2, "$version": 3}
    assert sdk.client.get_twin()["desired"] == {"a": 1, "b": 2, "$version": 3}
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"c": 3}}})
    assert sdk.next_patch() == {"c": 3, "$version": 4}


def test_restart_of_the_hub(nave, hub1, feed, device, connect):
    sdk = connect(device, methods=True, patches=True)
    sdk.client.patch_twin_reported_properties({"before": "restart"})
    hub1.patch_twin(device["deviceId"], {"tags": {"t": 1}})
    twin = hub1.twin(device["deviceId"])
    nave.stop()
    sdk.wait_connected(False)
    nave.start()
    sdk.wait_connected(True, 60)

    after = hub1.twin(device["deviceId"])
    for name in ("tags", "etag", "version", "deviceEtag"):
        assert after[name] == twin[name], name
    assert after["properties"] == twin["properties"]
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"after": 2}}})
    assert sdk.wait_patch(lambda patch: "after" in patch)["after"] == 2
    assert hub1.invoke(device["deviceId"], "hello", connectTimeoutInSeconds=20).json()["status"] == 200
    sdk.client.send_message("after the restart")
    assert feed.wait(device["deviceId"])[-1].body == b"after the restart"


def test_killed_hub_keeps_what_it_acknowledged(nave, hub1, feed, device, connect):
    sdk = connect(device)
    for number in range(20):
        sdk.client.send_message(str(number))
    sdk.client.patch_twin_reported_properties({"acknowledged": True})
    nave.kill()
    nave.start()
    sdk.wait_connected(True, 60)
    assert sdk.client.get_twin()["reported"] == {"acknowledged": True, "$version": 2}
    bodies = [event.body for event in feed.wait(device["deviceId"], 20)]
    assert bodies == [str(number).encode() for number in range(20)]


def test_second_connection_displaces_the_first(hub1, device, connect):
    first = connect(device, connection_retry=False)
    second = connect(device, methods=True, connection_retry=False)
    first.wait_connected(False)
    assert second.client.connected
    assert hub1.invoke(device["deviceId"], "hello", connectTimeoutInSeconds=20).status_code == 200
    assert hub1.device(device["deviceId"])["connectionState"] == "Connected"
