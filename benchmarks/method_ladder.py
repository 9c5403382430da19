"""What image methods cost and how far they are from multislice, on small specimens: `-m benchmarks.method_ladder`.

Writes benchmarks/results/method_ladder.json and, from the same run, the pictures of docs/simulation_methods.md. Every
method starts from the atoms; a processor-second counts all threads. About two processor-minutes.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from instruments import Optics
from instruments.plotting import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, plain_frame, scale_bar
from orchestrator.versions import versions
from simulation import AnnularDetector, GridScan, Simulator, reporting
from simulation.builders import PointDefect, dopant_at_depth, monolayer, perovskite, with_defects

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "method_ladder.json"
_FLOOR = 1e-6
"""Smaller differences are drawn here."""
ASSETS = HERE.parent / "docs" / "assets"
_COLOURS = {
    "multislice": "#1a1a1a", "prism": BLUE, "partitioned_prism": SKY, "windowed": GREEN, "periodic": PURPLE,
    "local_difference": VERMILLION, "incoherent": ORANGE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One specimen, how it is imaged, and the methods tried on it with their settings."""

    name: str
    title: str
    atoms: Any
    optics: Optics
    scan: GridScan
    sampling_nm: float
    methods: dict[str, dict[str, Any]]
    drawn: tuple[str, ...]


DETECTORS = {"haadf": AnnularDetector(60, 110), "abf": AnnularDetector(12, 25)}
_MULTISLICE = {"multislice": {"method": "multislice"}}
_INCOHERENT = {"incoherent": {"method": "incoherent"}}


def prism(*factors: int) -> dict[str, dict[str, Any]]:
    """PRISM with these interpolations."""
    return {f"prism f={factor}": {"method": "prism", "interpolation": factor} for factor in factors}


def partitioned(*distances: int) -> dict[str, dict[str, Any]]:
    """Partitioned PRISM with parents this many beams apart."""
    settings = {"method": "partitioned_prism"}
    return {f"partitioned_prism f={distance}": settings | {"interpolation": distance} for distance in distances}


def layer() -> Case:
    """A layer of MoS2 with a tungsten atom and a sulphur vacancy."""
    perfect = monolayer("MoS2", width_nm=3.1, height_nm=3.1)
    dopant = dopant_at_depth(perfect, "Mo", "W", x_nm=1.2, y_nm=1.2, depth_nm=0.4).atoms
    away = np.hypot(*(dopant.positions[:, :2] - (20.0, 19.0)).T) + 1e3 * (dopant.numbers != 16)
    made = with_defects(dopant, [(PointDefect("vacancy", "S"), int(np.argmin(away)))])
    windows = {
        f"windowed, {accuracy:g} asked": {"method": "windowed", "accuracy": accuracy} for accuracy in (0.1, 0.03, 0.01)
    }
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25)
    return Case(
        "layer", "MoS2, 3 nm, W and a vacancy, 60 kV", made.atoms, optics,
        GridScan(0.75, 0.75, 1.6, 1.6, (48, 48)), 0.0125,
        {**_MULTISLICE, **prism(1, 2, 4), **partitioned(2, 4), **windows, **_INCOHERENT},
        ("multislice", "prism f=2", "partitioned_prism f=2", "windowed, 0.1 asked", "windowed, 0.01 asked",
         "incoherent"),
    )  # fmt: skip


def crystal() -> Case:
    """10 nm of SrTiO3; two cells are scanned."""
    return Case(
        "crystal", "SrTiO3, 10 nm, 200 kV", _titanate(), _OPTICS, _TWO_CELLS, 0.0075,
        {**_MULTISLICE, **prism(1, 2), **partitioned(2), "periodic": {"method": "periodic"}, **_INCOHERENT},
        ("multislice", "prism f=2", "partitioned_prism f=2", "periodic", "incoherent"),
    )  # fmt: skip


def doped() -> Case:
    """The same with one strontium atom replaced by lanthanum at half the depth."""
    made = dopant_at_depth(_titanate(), "Sr", "La", x_nm=0.78, y_nm=0.78, depth_nm=5.0)
    return Case(
        "doped", "SrTiO3, 10 nm, one La, 200 kV", made.atoms, _OPTICS, _TWO_CELLS, 0.0075,
        {**_MULTISLICE, **prism(1, 2), **partitioned(2), "local_difference": {"method": "local_difference"},
         **_INCOHERENT},
        ("multislice", "prism f=2", "partitioned_prism f=2", "local_difference", "incoherent"),
    )  # fmt: skip


_OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=25)
_TWO_CELLS = GridScan(0.39, 0.39, 0.781, 0.781, (24, 24))


def _titanate() -> Any:
    return perovskite("SrTiO3", thickness_nm=10, width_nm=1.56, height_nm=1.56).atoms


def measured(case: Case) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float64]]]:
    """A row for each method, and its dark-field image."""
    rows: list[dict[str, Any]] = []
    images: dict[str, NDArray[np.float64]] = {}
    reference: dict[str, NDArray[np.float64]] = {}
    for label, settings in case.methods.items():
        detectors = {"haadf": DETECTORS["haadf"]} if settings["method"] == "incoherent" else DETECTORS
        start = time.process_time()
        simulator = Simulator(case.atoms, sampling_nm=case.sampling_nm, device="cpu", **settings)
        made = simulator.image(case.optics, case.scan, detectors)
        row: dict[str, Any] = {"case": case.name, "method": label, "cpu_s": time.process_time() - start}
        found = {name: np.asarray(made[name], dtype=np.float64) for name in detectors}
        reference = reference or found
        row["error_estimate"] = made.attrs["error_estimate"] if settings["method"] != "incoherent" else None
        for name, image in found.items():
            difference = image - reference[name]
            row[f"{name}_over_std"] = float(np.sqrt(np.mean(difference**2)) / reference[name].std())
        rows.append(row | {"atoms": len(case.atoms), "probes": case.scan.shape_px[0] * case.scan.shape_px[1]})
        images[label] = found["haadf"]
        print(json.dumps(rows[-1]), flush=True)
    return rows, images


def draw_images(case: Case, images: dict[str, NDArray[np.float64]], rows: list[dict[str, Any]]) -> None:
    """Dark-field images above, what they differ from multislice below."""
    figure = Figure(figsize=(2.15 * len(case.drawn), 4.9), dpi=80, layout="constrained")
    axes = figure.subplots(2, len(case.drawn))
    reference = images["multislice"]
    low, high = float(reference.min()), float(reference.max())
    extent = (0.0, case.scan.width_nm, 0.0, case.scan.height_nm)
    errors = {row["method"]: row["haadf_over_std"] for row in rows}
    for column, label in enumerate(case.drawn):
        axes[0, column].imshow(images[label], cmap="gray", vmin=low, vmax=high, extent=extent, origin="lower")
        axes[0, column].set_title(label.replace("_", " "), fontsize=8.5)
        scale_bar(axes[0, column], case.scan.width_nm)
        difference = (images[label] - reference) / reference.std()
        reach = float(np.abs(difference).max()) or 1.0
        axes[1, column].imshow(difference, cmap="RdBu_r", vmin=-reach, vmax=reach, extent=extent, origin="lower")
        said = "the reference" if column == 0 else f"rms {errors[label]:.2g}, red or blue: {reach:.2g}"
        axes[1, column].set_title(said, fontsize=8)
        scale_bar(axes[1, column], case.scan.width_nm, dark=True)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0, 0].set_ylabel("HAADF, 60 to 110 mrad")
    axes[1, 0].set_ylabel("difference / std")
    figure.suptitle(case.title, fontsize=10)
    _saved(figure, f"methods_{case.name}.png")


def draw_ladder(rows: list[dict[str, Any]], chosen: list[Case]) -> None:
    """Error against cost, a panel a specimen."""
    figure = Figure(figsize=(3.7 * len(chosen), 3.9), dpi=80, layout="constrained")
    panels = figure.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    for axes, case in zip(panels, chosen, strict=True):
        _draw_panel(axes, [row for row in rows if row["case"] == case.name])
        axes.set_title(case.title, fontsize=9)
    panels[0].set_xlim(0.1, 4 * max(row["cpu_s"] for row in rows))
    panels[0].set_ylabel("rms difference from multislice / std")
    panels[0].legend(
        handles=[panels[0].plot([], [], mark, color="#6b6b6b")[0] for mark in "os"], labels=["HAADF", "ABF"],
        frameon=False, fontsize=8, loc="lower left",
    )  # fmt: skip
    figure.savefig(ASSETS / "methods_ladder.png")


def _draw_panel(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        colour = _COLOURS[row["method"].split(" ")[0].rstrip(",")]
        for key, mark in (("haadf_over_std", "o"), ("abf_over_std", "s")):
            if key in row:
                axes.plot(row["cpu_s"], max(row[key], _FLOOR), mark, color=colour, markersize=5)
        shown = (
            row["method"]
            .replace("windowed, ", "windowed ")
            .replace(" asked", "")
            .replace("partitioned_prism", "partitioned")
            .replace("_", " ")
            .replace("multislice", "multislice ")
        )
        left = row["method"] in ("multislice", "windowed, 0.1 asked", "windowed, 0.01 asked")
        highest = max(row["haadf_over_std"], row.get("abf_over_std", 0.0), _FLOOR)
        offset = (-5 if left else 5, 8 if "partitioned" in shown else 2)
        axes.annotate(
            shown, (row["cpu_s"], highest), xytext=offset, color=colour,
            textcoords="offset points", ha="right" if left else "left", fontsize=7,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", ylim=(_FLOOR / 2, 5.0), xlabel="processor-seconds")
    axes.axhline(_FLOOR, color="#c9c9c9", linewidth=0.6)
    plain_frame(axes)


def _saved(figure: Figure, name: str) -> None:
    drawn = BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(ASSETS / name, optimize=True)


def main() -> None:
    """Measure, write and draw."""
    with reporting(None):
        warm = layer()
        Simulator(warm.atoms, sampling_nm=0.03, device="cpu", method="multislice").image(
            warm.optics, GridScan(0, 0, 1, 1, (2, 2)), {"haadf": AnnularDetector(30, 50)}
        )
        rows: list[dict[str, Any]] = []
        chosen = [layer(), crystal(), doped()]
        for case in chosen:
            found, images = measured(case)
            draw_images(case, images, found)
            rows += found
    draw_ladder(rows, chosen)
    document = {"benchmark": "method_ladder", "versions": versions(), "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
