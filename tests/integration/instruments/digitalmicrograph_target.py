"""Our server for DigitalMicrograph over the double of its Python module, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instruments.adapters.driven import DrivenMicroscope
from tests.integration.instruments.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[3]
SERVER = ROOT / "instruments" / "adapters" / "devices" / "digitalmicrograph_server.py"
DOUBLE = Path(__file__).with_name("digitalmicrograph_double")
SECRET = "not a secret: of these tests only 0123456789"
LEASE_S = 60.0  # the beam is off after so long without a word of its client
ANSWER_S = 30.0
HASTE = {"answer_s": 2.0, "readout_s": 1.0}  # for tests that wait in vain


class DigitalMicrographTarget(ServerProcess):
    """One server process, and what its double was called."""

    name = "digitalmicrograph"

    def __init__(self, lease_s: float = LEASE_S) -> None:
        super().__init__()
        self._lease_s = lease_s

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="dm-")
        self.secret_file, self._fault_file, self._calls_file = (
            Path(self._folder.name) / name for name in ("secret", "fault", "calls")
        )
        self.secret_file.write_text(f"{SECRET}\n")
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._folder.cleanup()

    def fault(self, name: str = "") -> None:
        """What the double does wrong from now on."""
        fresh = self._fault_file.with_suffix(".new")
        fresh.write_text(name)
        fresh.replace(self._fault_file)

    def calls(self) -> list[str]:
        """What the double was called since the process began."""
        return self._calls_file.read_text().splitlines()

    def exposure_count(self) -> int:
        return self.calls().count("DS_StartAcquisition lit True")

    def config(self, **more: Any) -> dict[str, Any]:
        scan = {"signals": {"haadf": 0, "bf": 1}, "fields_nm": {5: 128.0, 7: 64.0}, "max_frame_s": 6.0}
        return {
            "port": self._port, "secret_file": self.secret_file, "scan": scan, "probe_current_pa": 50.0,
            "limits": {"x_nm": (-200, 200), "y_nm": (-200, 200), "alpha_deg": (-30, 30), "defocus_nm": (-500, 500),
                       "beam_shift_x_nm": (-30, 30), "beam_shift_y_nm": (-30, 30)},
            "focus": {"zero": 100.0, "scale": -2.0}, "beam_shift": {"matrix": ((0.5, 0.1), (-0.1, 0.5))},
            "tolerances": {"x_nm": 0.01, "y_nm": 0.01}, "beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 31.5,
            "settle_s": 0.1, "answer_s": ANSWER_S, "readout_s": ANSWER_S, **more,
        }  # fmt: skip

    def open(self, **more: Any) -> DrivenMicroscope:
        opened = super().open(**more)
        assert isinstance(opened, DrivenMicroscope)
        return opened

    def revive(self) -> None:
        self.kill()
        self.fault()
        self._calls_file.write_text("")
        environment = {
            "PYTHONPATH": str(DOUBLE), "STEMPILOT_DM_PORT": "0", "STEMPILOT_DM_SECRET": str(self.secret_file),
            "STEMPILOT_DM_LEASE_S": str(self._lease_s), "DM_DOUBLE": str(self._fault_file),
            "DM_CALLS": str(self._calls_file), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, SERVER], stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        words = self.said.readline().split()
        assert words[:3] == ["stempilot:", "listening", "at"]
        self._port = int(words[-1])
