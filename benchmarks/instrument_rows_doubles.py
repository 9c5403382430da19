"""Rows of `benchmarks/instruments.py` for adapters at doubles: what they take is not what a real one takes.

Each bare client makes the requests, or the vendor's calls, that our adapter makes for the same.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import instruments
from benchmarks.instrument_rows import Row
from instruments import Blank, Microscope, SetAxes
from instruments.adapters.autoscript_config import AutoScriptConfig
from instruments.adapters.serialem_link import command_bytes, message
from instruments.microscope import Closable
from tests.integration.instruments.serialem_double import NUMBERS, SerialEMDouble

ROOT = Path(__file__).resolve().parents[1]
_DOUBLE = """
import sys
from tests.integration.instruments.serialem_double import SerialEMDouble
with SerialEMDouble() as double:
    print(double.port, flush=True)
    sys.stdin.read()
"""
_MAY_RUN = 3
_serial = count()


class _BareSerialEM:
    """A socket that sends what it saw our adapter send, and reads each answer."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._asked(message(_MAY_RUN))

    def close(self) -> None:
        self._socket.close()

    def again(self, seen: list[tuple[str, list[float], list[str]]]) -> None:
        for name, numbers, _ in seen:
            self._asked(command_bytes(NUMBERS[name], tuple(numbers)))

    def _asked(self, data: bytes) -> None:
        self._socket.sendall(data)
        (size,) = struct.unpack("<i", self._exactly(4))
        self._exactly(size - 4)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._socket.recv(size - len(data))
        return data


def _serialem_config(port: int) -> dict[str, Any]:
    return {
        "port": port, "command_numbers": NUMBERS, "settle_s": 0.0, "shape_px": (64, 64), "pixel_size_nm": 1.0,
        "limits": {"x_nm": (-200, 200), "y_nm": (-200, 200), "alpha_deg": (-30, 30)},
        "tolerances": {"x_nm": 0.01, "y_nm": 0.01}, "probe_current_pa": 50.0, "beam_energy_ev": 60e3,
        "semi_convergence_angle_mrad": 31.5, "min_exposure_s": 0.001, "max_exposure_s": 0.5, "readout_s": 1.0,
    }  # fmt: skip


@contextmanager
def serialem(folder: Path) -> Iterator[Row]:
    """A stage move over its socket; the same messages over a bare one. Doubles are processes, as SerialEM is."""
    del folder
    with SerialEMDouble() as double:
        first = _opened("serialem", **_serialem_config(double.port))
        first.execute(_stage(0))
        sent = [_sent_for(double, act) for act in (first.read_state, lambda: first.execute(_stage(1)))]
        _close(first)
    with _double_elsewhere() as port, _double_elsewhere() as other, closing(_BareSerialEM(other)) as bare:
        ours = _opened("serialem", **_serialem_config(port))
        try:
            yield Row(
                name="serialem", way="in process", bare="the same messages over a bare socket", microscope=ours,
                setting=_stage, bare_read=lambda _: bare.again(sent[0]), bare_setting=lambda _: bare.again(sent[1]),
            )  # fmt: skip
        finally:
            _close(ours)


@contextmanager
def _double_elsewhere() -> Iterator[int]:
    """The port of a double in a process of its own: in ours, its thread and the client would wait for one another."""
    with subprocess.Popen(
        [sys.executable, "-c", _DOUBLE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())  # afterwards its standard input is closed, which ends it


def _sent_for(double: SerialEMDouble, act: Callable[[], object]) -> list[tuple[str, list[float], list[str]]]:
    before = len(double.seen)
    act()
    return double.seen[before:]


@contextmanager
def ceos(folder: Path) -> Iterator[Row]:
    """A microscope with a corrector beside it; bare: the same microscope's adapter alone, at a double of its own."""
    from tests.integration.instruments.ceos_double import CeosDouble

    del folder
    with SerialEMDouble() as column, SerialEMDouble() as other, CeosDouble(lambda: not column.is_blanked) as gateway:
        ours = _opened(
            "ceos", port=gateway.port, beside={"adapter": "serialem", "config": _serialem_config(column.port)},
            max_magnitude_nm={"c12_nm": 500.0}, c1a1_max_duration_s=2.0,
        )  # fmt: skip
        bare = _opened("serialem", **_serialem_config(other.port))
        try:
            yield Row(
                name="ceos beside serialem", way="in process", bare="the microscope without its corrector",
                microscope=ours, setting=_stage, bare_read=lambda _: bare.read_state(),
                bare_setting=lambda number: bare.execute(_stage(number)),
            )  # fmt: skip
        finally:
            _close(ours)
            _close(bare)


@contextmanager
def pyjem(folder: Path) -> Iterator[Row]:
    """A beam shift through a worker; bare: the same calls of the library in this process."""
    from tests.integration.instruments.test_pyjem import CONFIG

    detectors = {name: {"name": one["name"], "number": one.get("number")} for name, one in CONFIG["detectors"].items()}
    arguments = {"connect": True, "offline": False, "detectors": detectors, "arrive_s": CONFIG["arrive_s"]}

    def shifted(device: Any, number: int) -> None:
        device.deflect([32768 + 20 * (number % 7), 32768], None, None)

    with _beside_its_device(folder, "pyjem", CONFIG, arguments, shifted) as row:
        yield row


@contextmanager
def autoscript(folder: Path) -> Iterator[Row]:
    """A beam shift through a worker; bare: the same calls of the library in this process."""
    from tests.integration.instruments.test_autoscript import CONFIG

    names = AutoScriptConfig.checked(CONFIG).names.model_dump()
    arguments = {"host": "127.0.0.1", "port": 9095, "detectors": ["HAADF", "BF"], "names": names}
    with _beside_its_device(
        folder, "autoscript", CONFIG, arguments, lambda device, number: device.set([float(number % 7), 0.0], None)
    ) as row:
        yield row


@contextmanager
def _beside_its_device(
    folder: Path, name: str, config: dict[str, Any], arguments: dict[str, Any], shifted: Callable[[Any, int], None]
) -> Iterator[Row]:
    places = [folder / f"{name}-{side}" for side in ("ours", "bare")]
    for place in places:
        place.mkdir()
    module = import_module(f"instruments.adapters.devices.{name}_device")
    with _environment(VENDOR_DOUBLE=str(places[1])):
        bare = module.open_device(path=list(config["path"]), **arguments)
    with _environment(VENDOR_DOUBLE=str(places[0])):
        ours = _opened(name, **config)
    ours.execute(Blank(action_id="blank"))

    def set_bare(number: int) -> None:
        bare.read()
        shifted(bare, number)
        bare.read()

    try:
        yield Row(
            name=f"{name}, worker", way="worker", bare="the same calls of the library, in this process",
            microscope=ours, setting=_shift, bare_read=lambda _: bare.read(), bare_setting=set_bare,
        )  # fmt: skip
    finally:
        _close(ours)


@contextmanager
def digitalmicrograph(folder: Path) -> Iterator[Row]:
    """A beam shift through our server in its Python; bare: the same calls of its module, in this process."""
    from tests.integration.instruments.digitalmicrograph_target import DOUBLE, DigitalMicrographTarget

    faults, calls = folder / "dm-fault", folder / "dm-calls"
    faults.write_text("")
    with _environment(DM_DOUBLE=str(faults), DM_CALLS=str(calls)):
        sys.path.append(str(DOUBLE))
        server = import_module("instruments.adapters.devices.digitalmicrograph_server")
        bare = server.Instrument(import_module("DigitalMicrograph"))
    with DigitalMicrographTarget() as target:
        ours = target.open(settle_s=0.0)
        ours.execute(Blank(action_id="blank"))

        def set_bare(number: int) -> None:
            bare.read()
            bare.beam_shift([float(number % 7), 0.0])
            bare.read()

        try:
            yield Row(
                name="digitalmicrograph, its process", way="own process", bare="the same calls of its module",
                microscope=ours, setting=_shift, bare_read=lambda _: bare.read(), bare_setting=set_bare,
            )  # fmt: skip
        finally:
            _close(ours)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _opened(name: str, **config: Any) -> Microscope:
    return instruments.open(name, **config)


def _close(microscope: Microscope) -> None:
    assert isinstance(microscope, Closable)
    microscope.close()


def _stage(number: int) -> SetAxes:
    return SetAxes(action_id=f"set-{number}-{next(_serial)}", values={"x_nm": float(number % 7)})


def _shift(number: int) -> SetAxes:
    return SetAxes(action_id=f"set-{number}-{next(_serial)}", values={"beam_shift_x_nm": float(number % 7)})


DOUBLE_ROWS: dict[str, Callable[[Path], AbstractContextManager[Row | str]]] = {
    "serialem": serialem,
    "ceos": ceos,
    "pyjem-worker": pyjem,
    "autoscript-worker": autoscript,
    "digitalmicrograph": digitalmicrograph,
}
