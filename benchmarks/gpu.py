"""The simulator on a GPU: each result checked against the CPU in double precision, then timed beside abTEM.

`python -m benchmarks.gpu --out FILE`. Needs torch with CUDA or CuPy, and neither Prefect nor a web framework. Times are
seconds by the device's own events and on the wall: of the first image (with everything to build), and of a second one
that uses what was kept. `--wheels FOLDER` names wheels of abTEM 1.0.11 and of what it needs: they are installed without
a network into an environment of their own that shares this Python's packages, and abTEM images the same cases there.
This Python needs numpy, scipy, xarray, pydantic, ase and array-api-compat besides. What no longer fits into
`--limit-s` is left out, and the result says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import site
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.gpu_jobs import Job, jobs
from simulation import DeviceUnavailable
from simulation.backend import backend

_HERE = Path(__file__).parent
_COPIED_BYTES = 2**29
_COPIES = 10
_WHOLE_S = 570.0
"""All is to be over by then; abTEM's last run is stopped."""


def checked(job: Job, device: str, known: dict[str, xr.Dataset]) -> dict[str, float]:
    """Largest difference from the CPU's double precision over the spread, by detector.

    `known`: the CPU's images by job, made for the first device and kept for the next.
    """
    images = job.simulator(device).image(*job.few())
    if job.name not in known:
        known[job.name] = job.exact().image(*job.few())
    exact = known[job.name]
    found = {name: _difference(images[name], exact[name]) for name in exact.data_vars}
    return {str(name): value for name, value in found.items()}


def _difference(image: xr.DataArray, exact: xr.DataArray) -> float:
    spread = float(exact.std()) or 1.0
    return float(np.abs(image - exact).max()) / spread


def measured(job: Job, device: str, bytes_per_s: float, exact: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Whether it is right, what it costs, and how far that is from what the memory allows."""
    differences = checked(job, device, exact)
    fresh, timed = job.simulator(device), _timer(device)
    exposure = job.exposure()
    first, _ = timed(lambda: fresh.image(*exposure))
    again, images = timed(lambda: fresh.image(*exposure))
    traffic = job.propagated_bytes(images.attrs["window_px"])
    limit_s = None if traffic is None else traffic / bytes_per_s
    return {
        "job": job.name, "device": device, "probes": job.probes**2, "first": first, "again": again,
        "largest_difference_over_std": differences, "allowed_difference_over_std": job.tolerance,
        "is_right": all(value <= job.tolerance for value in differences.values()), "method": images.attrs["method"],
        "window_px": images.attrs["window_px"], "error_estimate": images.attrs["error_estimate"],
        "bandwidth_limit_s": limit_s, "over_bandwidth_limit": limit_s and again["device_s"] / limit_s,
    }  # fmt: skip


def _timer(device: str) -> Callable[[Callable[[], Any]], tuple[dict[str, float], Any]]:
    """Runs something; its seconds on the wall and between two events of the device (the wall's on a CPU)."""
    if device not in ("cuda", "cupy"):
        return _timed_on_the_wall
    library = importlib.import_module("torch" if device == "cuda" else "cupy").cuda

    def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
        events = [library.Event(enable_timing=True) if device == "cuda" else library.Event() for _ in range(2)]
        events[0].record()
        start = time.perf_counter()
        made = work()
        events[1].record()
        events[1].synchronize()
        wall_s = time.perf_counter() - start
        both = events[0].elapsed_time(events[1]) if device == "cuda" else library.get_elapsed_time(*events)
        return {"wall_s": wall_s, "device_s": both / 1e3}, made

    return timed


def _timed_on_the_wall(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    start = time.perf_counter()
    made = work()
    wall_s = time.perf_counter() - start
    return {"wall_s": wall_s, "device_s": wall_s}, made


def bandwidth_bytes_per_s(device: str) -> float:
    """What copying within the device's memory reaches, reading and writing counted."""
    on = backend(device)
    source = on.xp.zeros(_COPIED_BYTES // 4, dtype=on.xp.float32, device=on.device)
    target = source + 1

    def copy() -> None:
        for _ in range(_COPIES):
            target[...] = source

    timed = _timer(device)
    timed(copy)
    seconds, _ = timed(copy)
    return 2 * _COPIED_BYTES * _COPIES / seconds["device_s"]


def peer_environment(wheels: Path, folder: Path) -> str:
    """A Python with abTEM from these wheels and this Python's packages; the path of its executable."""
    venv.create(folder)
    python = folder / "bin" / "python"
    own = Path(sysconfig.get_path("purelib", scheme="venv", vars={"base": str(folder)}))
    packages = [*site.getsitepackages(), site.getusersitepackages()]
    (own / "parent.pth").write_text("\n".join(packages) + "\n", encoding="utf-8")
    found = sorted(wheels.glob("*.whl"))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, *found], check=True)
    return str(python)


def peers(job: Job, python: str, device: str, folder: Path, until: float) -> dict[str, Any]:
    """What abTEM needs for the case, and the seconds on the wall of all probes.

    Where it images fewer than that, half as many a side are imaged too: what is made once is not counted again.
    `until`: of the monotonic clock, when it is stopped.
    """
    assert job.peer is not None
    case, sides = job.case.write(folder, job.atoms), [job.peer_probes]
    if job.peer_probes < job.probes:
        sides.insert(0, job.peer_probes // 2)
    runs: list[dict[str, Any]] = []
    for side in sides:
        command = [python, "-P", str(_HERE / "simulation_peer.py"), str(case), job.peer, str(side),
                   str(folder / "images.npz"), device]  # fmt: skip
        left_s = max(1.0, until - time.monotonic())
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=left_s)
        except subprocess.TimeoutExpired:
            return {"method": job.peer, "failed": f"{left_s:.0f} s were left, and it took longer"}
        except subprocess.CalledProcessError as error:
            return {"method": job.peer, "failed": error.stderr.strip().splitlines()[-1:]}
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    rest = job.probes**2 - job.peer_probes**2
    each_s = (runs[-1]["wall_s"] - runs[0]["wall_s"]) / (sides[-1] ** 2 - sides[0] ** 2) if rest else 0.0
    all_s = runs[-1]["wall_s"] + rest * max(0.0, each_s)
    return {"method": job.peer, "probes": job.peer_probes**2, **runs[-1], "all_probes_s": all_s}


def _described(device: str) -> dict[str, Any]:
    known: dict[str, Any] = {"bandwidth_bytes_per_s": bandwidth_bytes_per_s(device)}
    if device == "cuda":
        known["gpu"] = importlib.import_module("torch").cuda.get_device_name()
    elif device == "cupy":
        known["gpu"] = importlib.import_module("cupy").cuda.runtime.getDeviceProperties(0)["name"].decode()
    return known


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "cupy-cuda12x", "cupy-cuda13x", "cupy", "numpy", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run(options: argparse.Namespace, folder: Path, document: dict[str, Any]) -> None:
    """Every job on every device that is there, then abTEM beside it, as long as there is time.

    `document` holds what is known at any moment, also where something fails.
    """
    start, rows = time.monotonic(), document["rows"]
    exact: dict[str, xr.Dataset] = {}
    for device in options.devices.split(","):
        try:
            backend(device)
        except DeviceUnavailable as error:
            print(f"{device}: {error}")
            continue
        document["devices"][device] = described = _described(device)
        for job in jobs(options.scale):
            if time.monotonic() - start > options.limit_s:
                rows.append({"job": job.name, "device": device, "left_out": f"{options.limit_s:.0f} s were over"})
                continue
            rows.append(measured(job, device, described["bandwidth_bytes_per_s"], exact))
            print(json.dumps(rows[-1]), flush=True)
    if options.wheels and not options.peer:
        try:
            options.peer = peer_environment(options.wheels, folder / "peer")
        except (subprocess.CalledProcessError, OSError) as error:
            document["abtem"] = f"not installed: {error}"
            print(document["abtem"])
    if options.peer:
        _beside(options, folder, rows, start)


def _beside(options: argparse.Namespace, folder: Path, rows: list[dict[str, Any]], start: float) -> None:
    """abTEM's seconds go into the rows."""
    known: dict[str, dict[str, Any]] = {}
    for row in [row for row in rows if "left_out" not in row]:
        job = next(each for each in jobs(options.scale) if each.name == row["job"])
        if job.peer is None or time.monotonic() - start > options.limit_s:
            continue
        if job.name not in known:
            device = "cpu" if options.devices == "cpu" else "gpu"
            known[job.name] = peers(job, options.peer, device, folder, start + _WHOLE_S)
            print(json.dumps({"job": job.name, "abtem": known[job.name]}), flush=True)
        row["abtem"] = known[job.name]
        if "all_probes_s" in known[job.name]:
            row["times_abtem"] = known[job.name]["all_probes_s"] / row["first"]["wall_s"]


def main() -> None:
    """A line a job; JSON with --out. Ends with status 1 where no device is found or a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", default="cuda,cupy", help="cuda, cupy or cpu, with commas between")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument("--peer", help="a Python that has abTEM 1.0.11")
    parser.add_argument("--wheels", type=Path, help="wheels to make one from")
    parser.add_argument("--limit-s", type=float, default=480.0, help="no job is begun after so many seconds")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {"benchmark": "gpu", "scale": options.scale, "versions": _versions()}
    document |= {"devices": {}, "rows": []}
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(options, Path(folder), document)
    finally:
        if options.out is not None:
            options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not document["rows"]:
        raise SystemExit("no GPU was found: nothing was checked")
    wrong = [f"{row['job']} on {row['device']}" for row in document["rows"] if not row.get("is_right", True)]
    if wrong:
        raise SystemExit(f"too far from the CPU: {', '.join(wrong)}; see largest_difference_over_std")


if __name__ == "__main__":
    main()
