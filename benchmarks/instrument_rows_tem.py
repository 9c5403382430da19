"""Rows of `benchmarks/instruments.py` for microscopes behind TEM servers: temscript and instamatic, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count
from pathlib import Path

import instruments
from benchmarks.instrument_rows import Row
from instruments import AcquireFrame, Blank, Optics, ScanPattern, SetAxes
from instruments.microscope import Closable

ROOT = Path(__file__).resolve().parents[1]
_TEMSCRIPT = """
from temscript.null_microscope import NullMicroscope
from temscript.server import MicroscopeHandler, MicroscopeServer
MicroscopeHandler.log_message = lambda *arguments: None
server = MicroscopeServer(("127.0.0.1", 0), microscope_factory=NullMicroscope, allow_column_valves_open=False)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
_EXPOSURE_S = 0.01
_serial = count()


@contextmanager
def temscript(folder: Path) -> Iterator[Row | str]:
    """The null microscope: a stage move and a frame of 512 x 512 px in 10 ms, beside temscript's own client.

    The bare client sends the requests that ours does for the same: whether the beam is off, the move, whether the stage
    stands, state and vacuum; for a frame whether the camera is set up as well, and the blanker.
    """
    del folder
    try:
        from temscript import RemoteMicroscope
    except ImportError:
        yield "pip install 'stempilot[temscript]'"
        return
    process = subprocess.Popen([sys.executable, "-c", _TEMSCRIPT], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        ours = instruments.open(
            "temscript",
            port=port,
            probe_current_pa=1000.0,
            max_exposure_s=1.0,
            cameras={"CCD": {"pixel_size_nm": {10: 0.24}}},
        )
        bare = RemoteMicroscope(("127.0.0.1", port), timeout=5.0)
        bare.set_camera_param("CCD", {"image_size": "FULL", "binning": 4, "correction": "UNPROCESSED"})
        bare.set_camera_param("CCD", {"exposure(s)": _EXPOSURE_S})
        ours.execute(Blank(action_id="blank"))

        def set_bare(number: int) -> None:
            bare.get_beam_blanked()
            bare.set_stage_position({"x": _place_nm(number) * 1e-9})
            bare.get_stage_status()
            bare.get_state(), bare.get_vacuum()

        def expose_bare(number: int) -> None:
            del number
            bare.get_state(), bare.get_vacuum()
            for _ in range(2):  # before and after what has to be set, which is nothing for the same frame again
                bare.get_instrument_mode(), bare.get_projection_mode(), bare.get_camera_param("CCD")
            bare.get_camera_param("CCD")
            bare.set_beam_blanked(False)
            bare.acquire("CCD")
            bare.set_beam_blanked(True)
            bare.get_beam_blanked()
            bare.get_state(), bare.get_vacuum()

        try:
            yield Row(
                name="temscript",
                way="in process",
                bare="temscript's client, the same requests",
                microscope=ours,
                setting=_stage,
                bare_read=lambda _: (bare.get_state(), bare.get_vacuum()),
                bare_setting=set_bare,
                frame=_image,
                bare_frame=expose_bare,
                long=lambda number: _image(number, exposure_s=1.0),
            )
        finally:
            _close(ours)
    finally:
        process.kill()
        process.wait()


@contextmanager
def instamatic(folder: Path) -> Iterator[Row | str]:
    """The simulated microscope: a beam shift, beside the same calls over a bare socket, as its client makes them."""
    from tests.integration.instruments.instamatic_target import ENVIRONMENT, InstamaticTarget

    if not (ENVIRONMENT / "installed").exists():
        yield "make .venv/instamatic/installed"
        return
    config = {
        "limits": {"beam_shift_x_nm": (-5000, 5000), "beam_shift_y_nm": (-5000, 5000)},
        "deflectors": {"beam_shift": {"matrix": ((0.5, 0.0), (0.0, 0.5))}},
    }
    place = folder / "instamatic"
    place.mkdir()
    with InstamaticTarget(place, config) as target:
        ours = target.open()
        ours.execute(Blank(action_id="blank"))
        with closing(socket.create_connection(target.addresses()[0])) as bare:

            def ask(function: str, *arguments: object) -> object:
                bare.sendall(json.dumps({"func_name": function, "args": arguments, "kwargs": {}}).encode())
                return json.loads(bare.recv(1024))

            def read() -> None:
                for function in ("getStagePosition", "getBeamShift", "getScreenPosition", "getHTValue"):
                    ask(function)
                ask("isBeamBlanked")

            def set_bare(number: int) -> None:
                ask("isBeamBlanked")
                ask("setBeamShift", 32_768 + 2 * round(_place_nm(number)), 32_768)
                read()

            try:
                yield Row(
                    name="instamatic",
                    way="in process",
                    bare="the same calls over a bare socket",
                    microscope=ours,
                    setting=_shift,
                    bare_read=lambda _: read(),
                    bare_setting=set_bare,
                )
            finally:
                _close(ours)


def _place_nm(number: int) -> float:
    return float(number % 7) * 50.0


def _stage(number: int) -> SetAxes:
    return SetAxes(action_id=f"set-{next(_serial)}", values={"x_nm": _place_nm(number)})


def _shift(number: int) -> SetAxes:
    values = {"beam_shift_x_nm": _place_nm(number), "beam_shift_y_nm": 0.0}
    return SetAxes(action_id=f"set-{next(_serial)}", values=values)


def _image(number: int, exposure_s: float = _EXPOSURE_S) -> AcquireFrame:
    return AcquireFrame(
        action_id=f"image-{number}-{next(_serial)}",
        deadline_s=60.0,
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=1.0, probe_current_pa=1000.0),
        scan=ScanPattern(
            field_of_view_nm=2048 * 0.24, shape_px=(512, 512), dwell_time_us=exposure_s * 1e6, at_once=True
        ),
        mode="CCD",
    )


def _close(microscope: object) -> None:
    if isinstance(microscope, Closable):
        microscope.close()


TEM_ROWS: dict[str, Callable[[Path], AbstractContextManager[Row | str]]] = {
    "temscript": temscript,
    "instamatic": instamatic,
}
