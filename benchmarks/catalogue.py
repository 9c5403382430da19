"""How long one durable step of the catalogue takes: intend, keep (encode, write, sync, commit), observe, read back.

    python benchmarks/catalogue.py [FOLDER]

FOLDER should lie on the disk in question. Prints medians in ms of wall and of processor time as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from instruments import AcquireFrame, Detector, Frame, MicroscopeState, Mode, Optics, ScanPattern, StagePosition
from orchestrator.catalogue import Catalogue
from orchestrator.decisions import Decision
from policies import Suggestion

REPEATS = 15
SHAPE_PX = (512, 512)
SUBFRAMES = 4


def command(action_id: str) -> AcquireFrame:
    """A field of 512 x 512 px, four sub-frames."""
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60.0,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30.0, probe_current_pa=30.0),
        scan=ScanPattern(field_of_view_nm=10.24, shape_px=SHAPE_PX, dwell_time_us=2.0),
        mode="maadf",
        subframe_count=SUBFRAMES,
    )


def frame(asked: AcquireFrame, rng: np.random.Generator) -> Frame:
    """Poisson counts on two detectors, uint16."""
    shape = (SUBFRAMES, *SHAPE_PX)
    names = {"maadf": 3.0, "bf": 6.0}
    return Frame(
        action_id=asked.action_id,
        requested=asked,
        state=MicroscopeState(time_s=4.0, stage=StagePosition(), optics=asked.optics),
        mode=Mode(name="maadf", detectors=tuple(Detector(name=name) for name in names)),
        counts={name: rng.poisson(mean, shape).astype(np.uint16) for name, mean in names.items()},
        pixel_size_nm=asked.scan.pixel_size_nm,
        dose_e_per_a2=1.0,
        electrons=1.0,
        started_s=0.0,
        ended_s=4.0,
        instrument="benchmark",
        simulated=True,
    )


def timed(times: dict[str, list[tuple[float, float]]], name: str, call: Callable[[], object]) -> None:
    """Note wall and processor time of a call, in ms."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    call()
    times.setdefault(name, []).append((1e3 * (time.perf_counter() - wall_s), 1e3 * (time.process_time() - cpu_s)))


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Medians by step."""
    rng, times = np.random.default_rng(0), dict[str, list[tuple[float, float]]]()
    with Catalogue.open(folder) as catalogue:
        experiment = catalogue.create_experiment(name="benchmark", spec={}, seed=0, engine="local", options={})
        for seq in range(1, REPEATS + 1):
            decision = Decision.of(Suggestion(id=f"s{seq}", point={"x_nm": 1.0}), experiment, seq)
            asked = command(f"a{seq}")
            made = frame(asked, rng)
            timed(times, "intend", lambda: catalogue.intend(experiment, decision, asked))  # noqa: B023
            intent = catalogue.pending(experiment)[0]
            timed(times, "keep", lambda: catalogue.keep(intent, made))  # noqa: B023
            timed(times, "observe", lambda: catalogue.observe(intent, {"score": 1.0}, bytes(100_000)))  # noqa: B023
            timed(times, "load_frame", lambda: catalogue.load_frame(intent.frame_id))  # noqa: B023
    return {
        name: {
            "wall_ms": round(median(wall for wall, _ in found), 2),
            "cpu_ms": round(median(cpu for _, cpu in found), 2),
        }
        for name, found in times.items()
    }


def main() -> None:
    """Measure in the named folder, or in a temporary one."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        print(json.dumps({"frame": f"{SUBFRAMES} x {SHAPE_PX} uint16 x 2", "steps": measure(Path(folder))}, indent=2))


if __name__ == "__main__":
    main()
