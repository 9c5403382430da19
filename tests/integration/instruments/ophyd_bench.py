"""What the tests of ophyd and of ophyd-async have alike: opening, calls beside, an instrument without a beam."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instruments import AcquireFrame, InstrumentError, Optics, ScanPattern, StagePosition, registry
from instruments.adapters.ophyd import OphydMicroscope


def opened(config: dict[str, Any]) -> OphydMicroscope:
    microscope = registry.open("ophyd", **config)
    assert isinstance(microscope, OphydMicroscope)
    return microscope


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """What a call in a thread of its own gives or raises, once the thread has ended."""
    ended: list[object] = []

    def work() -> None:
        try:
            ended.append(call())
        except InstrumentError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, ended


def bench(
    devices: str, path: list[Path], axes: dict[str, Any], trigger: str, images: dict[str, str], **more: Any
) -> dict[str, Any]:
    """The configuration of a motor and a counter that a library simulates."""
    return {
        "devices": devices,
        "path": [str(one) for one in path],
        "label": "bench",
        "simulated": True,
        "has_beam": False,
        "stop_line": "shared",
        "axes": {
            "x_nm": {"signal": "motor", "minimum": -10, "maximum": 10, "tolerance": 1e-6},
            "field_of_view_nm": {"fixed": 1},
            **axes,
        },
        "stop": [{"signal": "motor"}],
        "modes": {
            "counter": {
                "kind": "camera",
                "trigger": trigger,
                "images": images,
                "detectors": [{"name": name, "without_references": "a point counter"} for name in images],
            }
        },
        **more,
    }


def count(
    action_id: str, x_nm: float, *, shape_px: tuple[int, int] = (1, 1), dwell_time_us: float = 1000.0
) -> AcquireFrame:
    """One exposure of that counter, the motor at `x_nm`."""
    return AcquireFrame(
        action_id=action_id,
        deadline_s=10.0,
        stage=StagePosition(x_nm=x_nm),
        optics=Optics(beam_energy_ev=1.0, semi_convergence_angle_mrad=0.0),
        scan=ScanPattern(field_of_view_nm=1.0, shape_px=shape_px, dwell_time_us=dwell_time_us, at_once=True),
        mode="counter",
    )
