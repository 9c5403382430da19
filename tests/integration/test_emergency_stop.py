"""An instrument behind a gateway that nobody has open here is stopped at the gateway: its beam may be on."""

from __future__ import annotations

from pathlib import Path

from instruments.remote import InstrumentHost, StopLine, endpoint_path
from orchestrator.settings import InstrumentSettings, Settings
from workflows.emergency_stop import clear, emergency_stop


def test_a_gateway_that_nobody_has_open_here_is_stopped_there_and_cleared_there(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    ticket = endpoint_path(there, "titan")
    titan = InstrumentSettings(adapter="gateway", config={"ticket": str(ticket)})
    settings = Settings(data_folder=tmp_path / "here", instruments={"titan": titan})
    host = InstrumentHost("titan", there)
    host.start()
    try:
        (stopped,) = emergency_stop(settings, "titan", by="anna", reason="smoke")
        assert (stopped.is_reached, stopped.is_locked) == (True, True), stopped
        assert stopped.message.startswith("at its gateway: ")
        lock = StopLine.of(ticket).status().lock
        assert lock is not None
        assert (lock.by, lock.reason) == ("anna", "smoke")
        (cleared,) = clear(settings, "titan", by="anna")
        assert not cleared.is_locked, cleared
        assert StopLine.of(ticket).status().lock is None
        secret = ticket.read_text(encoding="utf-8")
    finally:
        host.end("the test is over")
    ticket.write_text(secret, encoding="utf-8")
    (unheard,) = emergency_stop(settings, "titan", by="anna", reason="smoke")
    assert (unheard.is_reached, unheard.beam_blanked, unheard.is_locked) == (False, None, True), unheard
    assert "its gateway did not answer" in unheard.message
