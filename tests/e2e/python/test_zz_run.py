"""What is true of the run as a whole."""

import pytest

from harness import secrets


@pytest.mark.last
def test_log_holds_no_secret(nave):
    log = nave.log_text()
    assert log.strip(), "the hub logs nothing: there is nothing to look through"
    known = secrets.known()
    assert known, "the run used no key"
    found = [secret for secret in known if secret in log]
    assert not found, f"{len(found)} keys are in the log {nave.log}"
    nave.collect()
    assert not secrets.leaks(), "a key is in what the hub says of itself"
    assert "SharedAccessSignature sr=" not in log, "a token is in the log"


@pytest.mark.last
def test_no_failure_of_its_own_in_the_log(nave):
    bad = [line for line in nave.log_text().splitlines() if "panicked" in line or "RUST_BACKTRACE" in line]
    assert not bad, bad


@pytest.mark.last
def test_ends_cleanly(nave):
    """SIGTERM: exit code 0, and the ready file is gone. The harness asserts both."""
    nave.stop()
    nave.start()
