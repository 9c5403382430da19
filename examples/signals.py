"""The picture of `docs/signals.md`: one panel for each kind of signal. `python examples/signals.py picture.png`."""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import graphene
from ase.io import read
from matplotlib.figure import Figure
from PIL import Image

from instruments.optics import Aberrations, Optics
from simulation import AnnularDetector, GridScan, PixelatedDetector, simulate
from simulation.counting import DetectorChain, electrons_per_pixel, raw_counts
from simulation.phase_contrast import centre_of_mass, phase_from_field, single_side_band
from simulation.ronchigram import amorphous_phase, ronchigram
from simulation.scan_distortions import ScanDistortion, distorted_scan
from simulation.specimens import orthogonal_cell
from simulation.spectroscopy import (
    DrudePlasmon,
    atoms_seen_per_nm2,
    cross_section_barn_per_ev,
    edge,
    plural_spectrum,
    with_plural_losses,
    zero_loss_peak,
)

STRUCTURE = Path(__file__).parent / "structures" / "WSe2.extxyz"
GRAPHITE_ATOMS_PER_NM3 = 113.0


def phase_images(axes: Any) -> None:
    """Graphene out of focus: the integrated centre of mass stays blurred, side bands take the aberrations out."""
    cell = orthogonal_cell(graphene(a=2.46, vacuum=2.0))
    atoms = cell * (6, 4, 1)
    width_nm, height_nm = cell.cell[0, 0] / 10, cell.cell[1, 1] / 10
    optics = Optics(
        beam_energy_ev=60e3, semi_convergence_angle_mrad=30, defocus_nm=8, aberrations=Aberrations(c12_nm=4)
    )
    scan = GridScan(0, 0, 2 * width_nm, height_nm, (20, 24))
    images = simulate(atoms, optics, scan, {"4d": PixelatedDetector(max_angle_mrad=75)}, sampling_nm=0.012)
    patterns, y, x = images["4d"].values, images["detector_y"].values, images["detector_x"].values
    integrated = phase_from_field(centre_of_mass(patterns, y, x), scan.pixel_nm, optics.beam_energy_ev)
    bands = single_side_band(patterns, y, x, scan.pixel_nm, optics)
    extent = (0, 4 * width_nm, 0, 2 * height_nm)
    for axis, phase, name in ((axes[0], integrated, "iCOM"), (axes[1], bands, "side bands")):
        axis.imshow(np.tile(phase, (2, 2)), cmap="gray", origin="lower", extent=extent, interpolation="bilinear")
        axis.set_title(f"graphene, 8 nm underfocus: {name},\n{np.ptp(phase):.3f} rad from dark to bright")
        axis.set_xlabel("nm")


def ronchigram_image(axis: Any) -> None:
    """An amorphous film with astigmatism and coma."""
    aberrations = Aberrations(c12_nm=40, phi12_deg=30, c21_nm=1500, phi21_deg=90, c30_nm=2e4)
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=40, defocus_nm=150, aberrations=aberrations)
    film = amorphous_phase((1280, 1280), 0.025, beam_energy_ev=60e3, thickness_nm=5, rng=np.random.default_rng(1))
    image = ronchigram(optics, film, 0.025)
    limits = [float(image["detector_x"][end]) for end in (0, -1)] + [float(image["detector_y"][end]) for end in (0, -1)]
    axis.imshow(image, cmap="gray", origin="lower", extent=limits, vmax=float(image.quantile(0.995)))
    axis.set_title("Ronchigram: C12 40 nm, C21 1.5 µm,\nunderfocus 150 nm")
    axis.set_xlabel("mrad")


def spectrum(axis: Any) -> None:
    """The carbon K edge of 30 nm graphite with and without plural losses, on the background's electrons."""
    beam_ev, angle_mrad, thickness_nm = 60e3, 20.0, 30.0
    low_axis = np.arange(-20.0, 200.0, 0.5)
    per_nm = DrudePlasmon(27.0, 12.0).scattering_per_nm_per_ev(low_axis, beam_ev, angle_mrad)
    low = plural_spectrum(low_axis, thickness_nm * per_nm, zero_loss_peak(low_axis, 0.8))
    loss = np.arange(200.0, 450.0, 0.5)
    area_per_nm2 = GRAPHITE_ATOMS_PER_NM3 * thickness_nm
    single = area_per_nm2 * 1e-10 * cross_section_barn_per_ev(edge("C", "K"), loss, beam_ev, angle_mrad) * 0.5
    background = 1e-4 * (loss / 200.0) ** -3.0
    electrons = 2e7
    mean = background + with_plural_losses(low_axis, single, low)
    counts = raw_counts(mean, electrons, DetectorChain(read_noise_counts=3, offset_counts=20), np.random.default_rng(2))
    axis.plot(loss, counts - 20.0, lw=0.6, color="0.5", label="raw counts less offset")
    axis.plot(loss, electrons * (background + single), lw=1, ls="--", color="C0", label="single losses only")
    axis.plot(loss, electrons * mean, lw=1.2, color="C3", label="with plural losses")
    axis.set(xlabel="energy loss (eV)", ylabel="counts", title="30 nm of graphite, C K edge,\n60 kV, 20 mrad")
    axis.legend(fontsize=7, frameon=False)


def element_maps(axis: Any) -> None:
    """Strontium titanate 8 nm deep: how much of the probe each element sees."""
    a = 3.905
    cell = Atoms(
        "SrTiO3",
        scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
        cell=[a] * 3,
    )
    atoms = cell * (3, 3, 20)
    optics = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=21)
    scan = GridScan(0, 0, a / 10, a / 10, (14, 14))
    colours = []
    for element in ("Sr", "Ti", "O"):
        seen = atoms_seen_per_nm2(atoms, optics, scan, element, interaction_rms_nm=0.02, sampling_nm=0.0125)
        even = sum(symbol == element for symbol in cell.symbols) * 20 / (a / 10) ** 2
        colours.append(np.tile(seen.values / even, (2, 2)))
    scaled = np.stack([each / each.max() for each in colours], axis=-1)
    side = 2 * a / 10
    axis.imshow(scaled, origin="lower", extent=(0, side, 0, side), interpolation="bilinear")
    highest = ", ".join(f"{name} {each.max():.0f}" for name, each in zip(("Sr", "Ti", "O"), colours, strict=True))
    axis.set_title(f"8 nm of SrTiO3: red Sr, green Ti, blue O;\nprobe over even light: up to {highest}")
    axis.set_xlabel("nm")


def counted_image(axis: Any) -> None:
    """WSe2 as an instrument stores it: shot noise, a detector chain, jitter, a slow flyback, drift."""
    atoms = orthogonal_cell(read(STRUCTURE)) * (6, 4, 1)
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30, probe_current_pa=30)
    scan = GridScan(0.3, 0.3, 1.2, 1.2, (60, 60))
    distortion = ScanDistortion(
        row_jitter_nm=0.008, flyback_error_nm=0.15, flyback_settling_us=60, drift_x_nm_per_s=1.5, drift_y_nm_per_s=0.5
    )
    rng = np.random.default_rng(3)
    visited = distorted_scan(scan, distortion, rng, dwell_time_us=20, flyback_time_us=200)
    haadf = {"haadf": AnnularDetector(80, 160)}
    images = simulate(atoms, optics, visited, haadf, sampling_nm=0.0125)
    chain = DetectorChain(
        quantum_efficiency=0.8,
        gain_counts_per_electron=12,
        gain_spread_fraction=0.4,
        offset_counts=40,
        read_noise_counts=6,
    )
    electrons = electrons_per_pixel(optics.probe_current_pa, 20)
    counts = raw_counts(images["haadf"].values.reshape(scan.shape_px), electrons, chain, rng)
    drawn = axis.imshow(counts, cmap="gray", origin="lower", extent=(0.3, 1.5, 0.3, 1.5))
    axis.set_title("WSe2 HAADF in raw counts: 30 pA, 20 µs,\njitter, slow flyback, drift")
    axis.set_xlabel("nm")
    axis.figure.colorbar(drawn, ax=axis, shrink=0.8)


def main() -> None:
    """Compute all panels and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    phase_images(axes[0, :2])
    ronchigram_image(axes[0, 2])
    spectrum(axes[1, 0])
    element_maps(axes[1, 1])
    counted_image(axes[1, 2])
    for axis in axes.flat:
        axis.title.set_fontsize(8)
        axis.tick_params(labelsize=7)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=84, format="png")
    Image.open(drawn).convert("RGB").quantize(255, kmeans=1).save(parser.parse_args().picture, optimize=True)


if __name__ == "__main__":
    main()
