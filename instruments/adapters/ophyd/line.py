"""The adapter's end of the process that holds the devices: a worker that is ended when a call found nobody there.

EPICS reads its environment once for each process, and some of its libraries give the late reply of one read to the
next: so a facility's devices have processes of their own, and one whose call ran out of time is never asked again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from instruments.adapters.ophyd.config import OphydConfig
from instruments.errors import LinkLost
from instruments.workers import Program, Worker

_GRACE_S: Final = 2.0  # the process says itself that the time ran out; only one that hangs is killed
_START_S: Final = 30.0  # for Python and the libraries, beside the time to connect
_ROOT: Final = Path(__file__).parents[3]  # where `instruments` is imported from
_PROGRAM: Final = Path(__file__).with_name("device_program.py")


class DeviceLine:
    """Calls to one devices' process, one after another; `stop` goes beside them."""

    def __init__(self, config: OphydConfig, paths: set[str]) -> None:
        settings = {
            "environment": config.environment,
            "folders": [*map(str, config.path), str(_ROOT)],
            "devices": config.devices,
            "arguments": config.arguments,
            "paths": sorted(paths),
            "stopping": _stopping(config),
            "connect_s": config.connect_s,
            "answer_s": config.answer_s,
        }
        python = config.python or Path(sys.executable)
        self._stop_s = config.stop_latency_s + config.answer_s + _GRACE_S
        self._answer_s = config.answer_s
        self._worker = Worker(
            Program(
                name=config.label, python=python, file=_PROGRAM, config=settings, start_s=config.connect_s + _START_S
            )
        )

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody there, and none was made since."""
        return self._worker.is_lost

    def start(self) -> None:
        """Connect, if it is not connected. Raises ConfigurationError, LinkLost."""
        self._worker.start()

    def about(self) -> dict[str, Any]:
        """Limits by path, and versions."""
        return self._worker.call("about", deadline_s=self._answer_s + _GRACE_S)

    def call(self, name: str, deadline_s: float, **arguments: Any) -> Any:
        """The answer. Raises CommandRefused (nothing was sent to a device), LinkLost, InstrumentFault."""
        try:
            grace_s = self._answer_s + _GRACE_S
            return self._worker.call(name, {**arguments, "deadline_s": deadline_s}, deadline_s=deadline_s + grace_s)
        except LinkLost:
            self._worker.kill()  # a late reply must not meet the next call
            raise

    def stop(self) -> None:
        """Blank and stop, beside the call that runs. Raises LinkLost, InstrumentFault."""
        try:
            self._worker.stop(self._stop_s)
        except LinkLost:
            self._worker.kill()
            raise

    def abandon(self) -> None:
        """End the process, whatever it does; the next call starts another. From any thread."""
        self._worker.kill()

    def close(self) -> None:
        """End it for good, blanked; more than once is harmless."""
        self._worker.close()


def _stopping(config: OphydConfig) -> dict[str, Any]:
    """What a stop does: [path, value] each."""
    blanker = config.blanker
    return {
        "dark": [blanker.signal, blanker.blanked] if blanker else None,
        "confirm": [blanker.readback or blanker.signal, blanker.blanked] if blanker else None,
        "others": [[action.signal, action.value] for action in config.stop],
        "latency_s": config.stop_latency_s,
    }
