"""A soft IOC in a process of its own, and the configuration with which the adapter speaks to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.ports import unused_port

HERE = Path(__file__).parent


class SoftIoc:
    """A server on ports of its own; a context manager that ends it whatever happens."""

    def __init__(self, script: str = "ca_ioc.py", path: Path | None = None) -> None:
        self._repeater = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._repeater.bind(("0.0.0.0", 0))  # so no library starts a repeater that outlives the test
        self._script = script
        ca_port, pva_port = unused_port(), unused_port()
        self.environment = {
            "EPICS_CA_ADDR_LIST": "127.0.0.1",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_SERVER_PORT": str(ca_port),
            "EPICS_CA_REPEATER_PORT": str(self._repeater.getsockname()[1]),
            "EPICS_CA_MAX_ARRAY_BYTES": "4000000",
            "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_CA_CONN_TMO": "2",
            "EPICS_PVA_ADDR_LIST": "127.0.0.1",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(pva_port),
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_BROADCAST_PORT": str(pva_port),
            "EPICS_PVAS_SERVER_PORT": "0",
        }
        self._folders = [str(HERE), str(path)] if path else [str(HERE)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / self._script)],
            env={**os.environ, **self.environment, "PYTHONPATH": os.pathsep.join(self._folders)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def suspend(self) -> None:
        """Mute: connections stay, nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._repeater.close()


def configuration(environment: dict[str, str], **changes: Any) -> dict[str, Any]:
    """What a facility would write into `stempilot.toml`, as a dictionary."""
    return {
        "devices": "epics_devices:microscope",
        "arguments": {"prefix": "TEM:"},
        "path": [str(HERE)],
        "environment": environment,
        "label": "epics",
        "simulated": True,
        "axes": {
            "x_nm": {"signal": "stage_x", "scale": 1e-3, "minimum": -20_000, "maximum": 20_000, "tolerance": 0.2},
            "y_nm": {"signal": "stage_y", "scale": 1e-3, "minimum": -20_000, "maximum": 20_000, "tolerance": 0.2},
            "beam_shift_x_nm": {"signal": "shift_x", "tolerance": 0.01},
            "beam_shift_y_nm": {"signal": "shift_y", "tolerance": 0.01},
            "defocus_nm": {"signal": "defocus", "minimum": -1000, "maximum": 1000, "tolerance": 0.01},
            "probe_current_pa": {"signal": "current", "minimum": 1, "maximum": 100, "tolerance": 0.01},
            "beam_energy_ev": {"fixed": 60_000},
            "semi_convergence_angle_mrad": {"fixed": 31.5},
            "field_of_view_nm": {"signal": "field", "tolerance": 0.001},
            "dwell_time_us": {"signal": "dwell", "tolerance": 0.001},
            "subframe_count": {"signal": "subframes", "resolution": 1},
            "holder.temperature_k": {"signal": "temperature", "tolerance": 0.5},
            "holder.bias_v": {"signal": "bias", "tolerance": 0.01},
            "holder.flow_ml_per_min": {"signal": "flow", "tolerance": 0.001},
            "holder.strain_fraction": {"signal": "strain", "tolerance": 1e-4},
            "holder.pace_fraction": {"signal": "pace", "minimum": 0, "maximum": 1},
            "holder.jam_index": {"signal": "jammed", "minimum": 0, "maximum": 2},
        },
        "rows": {"signal": "rows"},
        "columns": {"signal": "columns"},
        "measured_current_pa": {"readback": "measured"},
        "blanker": {"signal": "blanked", "blanked": 1, "unblanked": 0},
        "stop": [{"signal": "abort", "value": 1}],
        "modes": {
            "haadf": {
                "trigger": "acquire",
                "trigger_value": 1,
                "frame_counter": "count",
                "images": {"haadf": "haadf"},
                "detectors": [
                    {
                        "name": "haadf", "inner_mrad": 60, "outer_mrad": 200, "gain_counts_per_electron": 1.0,
                        "without_references": "a soft IOC counts electrons",
                    }
                ],
            }
        },
        "connect_s": 300.0,
        "answer_s": 30.0,
        "stop_latency_s": 0.5,
        "set_s": 60.0,
        **changes,
    }  # fmt: skip
