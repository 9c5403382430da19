"""A temscript server in a process of its own: its null microscope, or one of ours behind it that sees something.

`python temscript_server.py null|lit|stubborn` prints its port, then a line for each exposure that begins, and serves
until it is killed. The server, its protocol and the null microscope are temscript's; `LitMicroscope` adds a camera and
a STEM detector that count electrons of a specimen of dots, dark while blanked.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from temscript.null_microscope import NullMicroscope
from temscript.server import MicroscopeHandler, MicroscopeServer

CAMERA_PX = 256
STEM_PX = 256
STEM_FIELD_AT_1_NM = 1e7
CAMERA_PIXEL_UM = 24.0
RATE_PER_NM2_S = 2e4
DOTS = np.random.default_rng(5).uniform(-400, 400, (6000, 2))  # x, y in nm
DOT_NM = 2.0


class LitMicroscope(NullMicroscope):
    """Dots on a thin film; +x of the stage shows what lies further along +x."""

    CCD_SIZE = CAMERA_PX

    def __init__(self) -> None:
        super().__init__(wait_exposure=True, voltage=60.0)
        self._mode = "TEM"
        self._stem_acq_param["image_size"] = "FULL"
        self._rng = np.random.default_rng(1)

    def get_family(self) -> str:
        return "DOTS"

    def is_stem_available(self) -> bool:
        return True

    def get_stem_detectors(self) -> dict[str, Any]:
        return {"HAADF": {"type": "STEM_DETECTOR", "binnings": [1, 2, 4]}}

    def get_instrument_mode(self) -> str:
        return self._mode

    def set_instrument_mode(self, mode: str) -> None:
        self._mode = mode

    def get_stem_acquisition_param(self) -> dict[str, Any]:
        return dict(self._stem_acq_param)

    def set_stem_acquisition_param(self, param: dict[str, Any], ignore_errors: bool = False) -> None:
        self._stem_acq_param |= param

    def acquire(self, *args: str) -> dict[str, np.ndarray]:
        if args == ("CCD",):
            blank = super().acquire(*args)["CCD"]  # waits for the exposure
            pixel_nm = CAMERA_PIXEL_UM * 1e3 / self.get_indicated_magnification() * self._ccd_param["binning"]
            means = self._means(blank.shape[0], pixel_nm, (0.0, 0.0)) * self._ccd_param["exposure(s)"]
            return {"CCD": self._rng.poisson(means).astype(np.int16)}
        side = STEM_PX // int(self._stem_acq_param["binning"])
        pixel_nm = STEM_FIELD_AT_1_NM / self._stem_magnification / side
        shift_nm = tuple(1e9 * self._beam_shift)
        means = self._means(side, pixel_nm, shift_nm, self._stem_rotation) / (RATE_PER_NM2_S * pixel_nm**2)
        dwell_s = float(self._stem_acq_param["dwell_time(s)"])
        time.sleep(dwell_s * side * side)
        return {"HAADF": self._rng.poisson(1e7 * dwell_s * means).astype(np.uint16)}

    def _means(self, side: int, pixel_nm: float, shift_nm: tuple[float, ...], turn_rad: float = 0.0) -> np.ndarray:
        """Electrons per second and pixel of a raster that is turned from +x towards +y."""
        if self._beam_blanked:
            return np.zeros((side, side))
        along = (np.arange(side) - (side - 1) / 2) * pixel_nm
        x, y = (DOTS - [1e9 * self._stage_pos[way] + nm for way, nm in zip("xy", shift_nm, strict=True)]).T
        cosine, sine = np.cos(turn_rad), np.sin(turn_rad)
        spread = 2 * DOT_NM**2
        columns = np.exp(-((along[None, :] - (cosine * x + sine * y)[:, None]) ** 2) / spread)
        rows = np.exp(-((along[None, :] - (cosine * y - sine * x)[:, None]) ** 2) / spread)
        return RATE_PER_NM2_S * pixel_nm**2 * (0.2 + rows.T @ columns)


class StubbornMicroscope(NullMicroscope):
    """A camera whose exposure is never what it was told, as long as the spot is 1; afterwards it gives no image."""

    def set_camera_param(self, name: str, param: dict[str, Any], ignore_errors: bool = False) -> None:
        super().set_camera_param(name, param, ignore_errors)
        if self._spot_size == 1:
            self._ccd_param["exposure(s)"] = 1.0

    def acquire(self, *args: str) -> dict[str, np.ndarray]:
        super().acquire(*args)
        return {}


class TellingHandler(MicroscopeHandler):
    """Says on standard output when an exposure begins, and nothing else."""

    def do_GET_V1(self, endpoint: str, query: dict[str, Any]) -> Any:
        if endpoint == "acquire":
            print("exposing", flush=True)
        return super().do_GET_V1(endpoint, query)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    factory = {
        "null": lambda: NullMicroscope(wait_exposure=True),
        "lit": LitMicroscope,
        "stubborn": StubbornMicroscope,
    }[sys.argv[1]]
    server = MicroscopeServer(("127.0.0.1", 0), microscope_factory=factory, allow_column_valves_open=False)
    server.RequestHandlerClass = TellingHandler
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
