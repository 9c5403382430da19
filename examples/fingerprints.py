"""The picture of `docs/fingerprints.md`: structures by their images, thickness by averaged diffraction.

`python examples/fingerprints.py FOLDER picture.png` builds three libraries in the folder (a minute), or takes those
that are there.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import mx2
from matplotlib.figure import Figure
from PIL import Image

from instruments.optics import Coherence, Optics
from simulation import AnnularDetector, GridScan
from simulation.builders import crystal
from simulation.fingerprints import (
    Candidate,
    FingerprintLibrary,
    ImageFingerprint,
    LibrarySettings,
    Measured,
    PatternFingerprint,
)
from simulation.specimens import orthogonal_cell

DOSES_E_PER_A2 = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
PATTERN_ELECTRONS = (1e3, 1e4, 1e5, 1e6)
TRUE_THICKNESS_NM = 12.4


def layer_candidates() -> list[Candidate]:
    """MoS2 of two phases, and the usual one with a tungsten atom; one cell for all."""
    hexagonal, trigonal = (
        orthogonal_cell(mx2("MoS2", kind=kind, a=3.18, thickness=3.13, vacuum=3.0)) * (5, 3, 1) for kind in ("2H", "1T")
    )
    doped = hexagonal.copy()
    doped.numbers[np.flatnonzero(doped.numbers == 42)[7]] = 74
    return [Candidate("1H", hexagonal), Candidate("1T", trigonal), Candidate("1H with W", doped)]


def layer_library(folder: Path) -> FingerprintLibrary:
    """Two images of 1.6 by 1.7 nm, the whole cell, so that they may be shifted."""
    candidates = layer_candidates()
    width_nm, height_nm, _ = candidates[0].atoms.cell.lengths() / 10
    settings = LibrarySettings(
        optics=Optics(beam_energy_ev=80e3, semi_convergence_angle_mrad=25),
        coherence=Coherence(source_size_nm=0.08),
        images=ImageFingerprint(
            scan=GridScan(0, 0, width_nm, height_nm, (32, 32)),
            detectors={"haadf": AnnularDetector(80, 160), "abf": AnnularDetector(12, 25)},
        ),
        phonon_count=4,
        rms_displacements_nm={"Mo": 0.006, "S": 0.008, "W": 0.005},
    )
    library = FingerprintLibrary.open(folder, settings)
    library.build(candidates)
    return library


def perovskite_library(folder: Path, thicknesses_nm: tuple[float, ...]) -> FingerprintLibrary:
    """Position-averaged diffraction of SrTiO3, upright and leaning by two angles."""
    settings = LibrarySettings(
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20),
        pattern=PatternFingerprint(step_mrad=1.2, shape_px=(64, 64)),
        tilts_mrad=((0.0, 0.0), (3.0, 0.0), (6.0, 0.0)),
    )
    library = FingerprintLibrary.open(folder, settings)
    library.build([Candidate("SrTiO3", crystal("SrTiO3"), thicknesses_nm)])
    return library


def structures(axes: Any, library: FingerprintLibrary, rng: np.random.Generator) -> None:
    """What is counted of the doped layer, shifted anyhow, and what that says."""
    entries = library.entries
    names = [entry.label.structure for entry in entries]
    true = names.index("1H with W")
    width_nm, height_nm, _ = layer_candidates()[0].atoms.cell.lengths() / 10
    pixel_a2 = float(width_nm * height_nm) * 100 / 32**2
    for axis, entry in zip(axes[:3], entries, strict=True):
        axis.imshow(entry.arrays["image.haadf"], cmap="gray", origin="lower")
        axis.set_title(f"fingerprint: {entry.label.structure}, HAADF")
    shift = tuple(rng.integers(32, size=2))
    found = []
    for dose in DOSES_E_PER_A2:
        counts = {
            name: rng.poisson(np.roll(entries[true].arrays[f"image.{name}"], shift, (0, 1)) * dose * pixel_a2)
            for name in ("haadf", "abf")
        }
        measured = Measured(
            images=counts, electrons_e_per_px=dose * pixel_a2, dose_uncertainty_fraction=0.05, max_shift_nm=None
        )
        found.append(library.rank(measured).posterior)
        if dose == DOSES_E_PER_A2[-1]:
            axes[3].imshow(counts["haadf"], cmap="gray", origin="lower")
            axes[3].set_title(f"counted: 1H with W,\n{dose:.0f} e/Å², shift unknown")
    for name, posterior in zip(names, np.transpose(found), strict=True):
        axes[4].plot(DOSES_E_PER_A2, posterior, "o-", label=name)
    axes[4].set(xscale="log", xlabel="e/Å²", ylabel="posterior", ylim=(-0.03, 1.03))
    axes[4].set_title("truth: 1H with W")
    axes[4].legend(fontsize=6, loc="center right")


def thicknesses(axes: Any, folder: Path, rng: np.random.Generator) -> None:
    """Counts of a crystal between the thicknesses of the library."""
    library = perovskite_library(folder / "steps", tuple(float(t) for t in range(5, 21)))
    truth = perovskite_library(folder / "truth", (TRUE_THICKNESS_NM,)).entries[0]
    upright = [entry for entry in library.entries if entry.label.tilt_x_mrad == 0]
    for axis, entry in zip(axes[:3], (upright[0], upright[7], upright[15]), strict=True):
        axis.imshow(np.sqrt(entry.arrays["pattern"]), cmap="magma", origin="lower", extent=[-38.4, 38.4] * 2)
        axis.set_title(f"SrTiO3, {entry.label.thickness_nm:.1f} nm, averaged")
        axis.set_xlabel("mrad")
    for electrons in PATTERN_ELECTRONS:
        counts = rng.poisson(truth.arrays["pattern"] * electrons)
        measured = Measured(pattern=counts, pattern_electrons=electrons, dose_uncertainty_fraction=0.05)
        ranking = library.rank(measured)
        marginal = ranking.marginal("thickness_nm")
        verdict = "none of these" if ranking.is_none_of_these else f"p = {ranking.misfit_p_value:.2g}"
        axes[4].plot(list(marginal), list(marginal.values()), ".-", label=f"{electrons:.0e} electrons, {verdict}")
        if electrons == PATTERN_ELECTRONS[1]:
            axes[3].imshow(np.sqrt(counts), cmap="magma", origin="lower", extent=[-38.4, 38.4] * 2)
            axes[3].set_title(f"counted: {truth.label.thickness_nm:.1f} nm,\n{electrons:.0e} electrons")
            axes[3].set_xlabel("mrad")
    axes[4].axvline(truth.label.thickness_nm, color="gray", linestyle=":")
    axes[4].set(xlabel="thickness / nm", ylabel="posterior", ylim=(-0.03, 1.6))
    axes[4].set_title(f"truth: {truth.label.thickness_nm:.1f} nm, between steps")
    axes[4].legend(fontsize=6, loc="upper right")


def main() -> None:
    """Build the libraries, count, rank and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path)
    chosen = parser.parse_args()
    rng = np.random.default_rng(4)
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    axes = figure.subplots(2, 5, width_ratios=(1, 1, 1, 1, 1.5))
    structures(axes[0], layer_library(chosen.folder / "layers"), rng)
    thicknesses(axes[1], chosen.folder / "perovskite", rng)
    for axis in axes.flat:
        axis.title.set_fontsize(8)
        axis.tick_params(labelsize=7)
    for axis in axes[0, :4]:
        axis.set(xticks=[], yticks=[])
    drawn = BytesIO()
    figure.savefig(drawn, dpi=84, format="png")
    Image.open(drawn).convert("RGB").quantize(255, kmeans=1).save(chosen.picture, optimize=True)


if __name__ == "__main__":
    main()
