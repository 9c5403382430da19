"""A vendor's library, doubled, in a worker: where its column is kept, what it does wrong, what it was told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from instruments import (
    AcquireFrame,
    GuardedMicroscope,
    Optics,
    ResultUnknown,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StagePosition,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.conformance import AdapterTarget, Conditions
from tests.integration.instruments.conformed import conformed, names

DOUBLES = Path(__file__).with_name("vendor_doubles")
OF_A_SERVER = {"concurrent_clients", "mute_server", "call_after_timeout", "lost_answer", "server_killed"}


class VendorTarget:
    """The folder of one doubled microscope."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fault = folder / "fault"

    @contextmanager
    def doing_wrong(self, fault: str) -> Iterator[None]:
        self._fault.write_text(fault)
        try:
            yield
        finally:
            self._fault.unlink()

    @property
    def diary(self) -> list[str]:
        path = self.folder / "diary"
        return path.read_text().split() if path.exists() else []

    def since(self, entry_count: int) -> list[str]:
        return self.diary[entry_count:]


@contextmanager
def doubled(folder: Path) -> Iterator[VendorTarget]:
    """Workers started meanwhile have this column."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VENDOR_DOUBLE", str(folder))
        yield VendorTarget(folder)


def frame(
    action_id: str, x_nm: float = 0.0, dwell_us: float = 5.0, count: int = 1, *, mode: str, deadline_s: float = 60.0,
    **scan: Any,
) -> AcquireFrame:  # fmt: skip
    """64 x 64 px of 1 nm at the doubles' beam."""
    fixed = {"field_of_view_nm": 64.0, "shape_px": (64, 64), "dwell_time_us": dwell_us}
    return AcquireFrame(
        action_id=action_id,
        deadline_s=deadline_s,
        stage=StagePosition(x_nm=x_nm),
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=50.0),
        scan=ScanPattern(**{**fixed, **scan}),
        mode=mode,
        subframe_count=count,
    )


def going(**values: float | str) -> SetAxes:
    return SetAxes(action_id=f"set {values}", values=values)


def conforms_but_for_a_server(name: str, config: dict[str, Any], library: str) -> None:
    """The kit in its worker: every check that needs no line of its own passes, and nothing of the library is here."""
    conditions = Conditions(
        shape_px=(64, 64), field_of_view_nm=64.0, dwell_time_us=20.0, stop_exposure_s=40.0, stop_margin_s=10.0
    )
    report = conformed(AdapterTarget(name, config), conditions)
    assert names(report, "skipped") == OF_A_SERVER, report.table()
    assert len(names(report, "passed")) == len(report.findings) - len(OF_A_SERVER), report.table()
    assert library not in {module.partition(".")[0] for module in sys.modules}


def killed_when_it_hangs(target: VendorTarget, microscope: DrivenMicroscope, command: AcquireFrame) -> None:
    """Its library hangs in this exposure: killed, its dose kept, and nobody has blanked yet."""
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(max_dose_e_per_a2=1e12))
    with target.doing_wrong("hangs"), pytest.raises(ResultUnknown, match="assume that the beam is on"):
        guarded.acquire(command)
    assert guarded.ledger.electrons > 0, "its dose stays in the ledger"
    assert target.diary[-1] == "scan", "nobody has blanked yet"
    assert microscope.outcome(command.action_id) == "unknown"
    assert microscope.is_link_lost()
