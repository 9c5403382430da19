"""Draws docs/assets/specimens.png: specimens of `simulation.builders` and their HAADF images; some CPU minutes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from instruments import Optics
from instruments.optics import Coherence
from simulation import AnnularDetector, GridScan, simulate
from simulation.builders import (
    Landscape,
    LandscapeConfig,
    PointDefect,
    framework,
    monolayer,
    nanoparticle,
    on_film,
    perovskite,
    tilt_boundary,
    twisted_bilayer,
    with_random_defects,
)

OPTICS = Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=25)
DETECTOR = AnnularDetector(45, 72)
SIDE_PX = 50
SIDE_NM = 4.0
OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "assets" / "specimens.png"


def haadf(atoms: Any, x_nm: float = 0.0, y_nm: float = 0.0) -> np.ndarray:
    """A coarse image of 4 nm from (x, y) on, by PRISM."""
    scan = GridScan(x_nm=x_nm, y_nm=y_nm, width_nm=SIDE_NM, height_nm=SIDE_NM, shape_px=(SIDE_PX, SIDE_PX))
    images = simulate(
        atoms, OPTICS, scan, {"haadf": DETECTOR}, method="prism", interpolation=4, sampling_nm=0.0165,
        slice_thickness_nm=0.4, coherence=Coherence(source_size_nm=0.07),
    )  # fmt: skip
    return np.asarray(images["haadf"])


def structures() -> dict[str, tuple[Any, float, float]]:
    """Six structures, each with the corner of the field that is imaged."""
    defects = {PointDefect("column_vacancy", "S"): 0.4, PointDefect("substitution", "Mo", "W"): 0.4}
    layer = with_random_defects(monolayer("MoS2", width_nm=4, height_nm=4), defects, seed=3).atoms
    twisted = twisted_bilayer("MoS2", 9.43)
    doped = perovskite("SrTiO3", thickness_nm=4, width_nm=4, height_nm=4, a_site={"La": 0.1}, seed=1).atoms
    particle = on_film(nanoparticle("Au", "decahedron", diameter_nm=3.0), film_thickness_nm=2, margin_nm=0.8, seed=1)
    boundary = tilt_boundary("Au", (3, 1, 0), thickness_nm=2, width_nm=4, grain_height_nm=1.9).atoms
    zeolite = framework("FAU", (1, 1, 0), thickness_nm=2, width_nm=4, height_nm=4)
    return {
        "MoS2, S2 vacancies and W": (layer, 0, 0),
        "MoS2 bilayer, 9.4 degrees": (twisted, 0, 0),
        "SrTiO3, 10 % La": (doped, 0, 0),
        "Au decahedron on carbon": (particle, particle.cell.lengths()[0] / 20 - 2, particle.cell.lengths()[1] / 20 - 2),
        "Au, sigma 5 (3 1 0)": (boundary, 0, 0),
        "Faujasite [1 1 0]": (zeolite, 0, 0),
    }


def edge_of_a_flake(landscape: Landscape) -> np.ndarray:
    """The middle of the side of a flake that lies on the film."""
    edges = [
        np.array([flake.x_nm, flake.y_nm]) + flake.normals[0] * flake.distances_nm[0]
        for flake in landscape.flakes(-6e3, -6e3, 12e3, 12e3)
    ]
    return next(edge for edge in edges if landscape.terrain.has_film(edge[:1], edge[1:])[0])


def main() -> None:
    """Compute every image, then draw."""
    from matplotlib.figure import Figure
    from PIL import Image

    images = {name: haadf(atoms, x_nm, y_nm) for name, (atoms, x_nm, y_nm) in structures().items()}
    landscape = Landscape(LandscapeConfig(seed=8, film_thickness_nm=3, particles_per_um2=8000, flakes_per_um2=0.3))
    overview = landscape.overview(-30_000, -30_000, 60_000, 60_000, (240, 240))
    x_nm, y_nm = edge_of_a_flake(landscape) - 2.3
    images["Landscape: 4 nm at a flake's edge"] = haadf(landscape.atoms(float(x_nm), float(y_nm), 4.6, 4.6), 0.3, 0.3)
    figure = Figure(figsize=(10, 5.4), dpi=72, layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for axis, (name, image) in zip(axes, images.items(), strict=False):
        axis.imshow(image, cmap="gray", interpolation="bicubic", origin="lower", extent=(0, SIDE_NM, 0, SIDE_NM))
        axis.set_title(name, fontsize=9)
        axis.set_xticks([0, SIDE_NM], ["0", "4 nm"], fontsize=8)
        axis.set_yticks([])
    parts = overview.thickness_nm
    shown = np.where(parts["bar"] > 0, np.nan, parts["film"] + parts["contamination"] + 3 * parts["flake"])
    axes[7].imshow(shown, cmap="viridis", origin="lower", extent=(-30, 30, -30, 30))
    axes[7].set_title("Landscape: thickness, 60 um", fontsize=9)
    axes[7].set_xticks([])
    axes[7].set_yticks([])
    drawn = BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(OUTPUT, optimize=True)


if __name__ == "__main__":
    main()
