"""Core-loss fingerprints: hydrogenic edges of what a structure holds, for one electron, plural losses included."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.errors import InvalidParameter
from simulation.fingerprints.settings import SpectrumFingerprint
from simulation.fingerprints.stack import Stack
from simulation.slices import owners
from simulation.spectroscopy import (
    DrudePlasmon,
    Edge,
    cross_section_barn_per_ev,
    edge,
    plural_spectrum,
    with_plural_losses,
    zero_loss_peak,
)
from simulation.spectroscopy.kinematics import BARN_PER_NM2

_PLASMONS_KEPT = 12


def edge_named(name: str) -> Edge:
    """The edge of "O K" or "Ti L"."""
    element, _, shell = name.partition(" ")
    if not shell:
        raise InvalidParameter(f"edge {name!r} is not understood; name element and shell, such as 'O K' or 'Ti L'")
    return edge(element, shell)


def edge_spectra(settings: SpectrumFingerprint, stack: Stack, optics: Optics) -> NDArray[np.float64]:
    """(thicknesses, channels): electrons of core losses in each channel for one electron of the beam."""
    losses = np.asarray(settings.losses_ev)
    owner = owners(stack.specimen, stack.slice_thickness_nm)
    width, height, _ = stack.specimen.cell_angstrom
    area_nm2 = width * height / 100
    found = np.zeros((len(stack.cuts), len(losses)))
    for name in settings.edges:
        own = edge_named(name)
        per_ev = cross_section_barn_per_ev(
            own,
            losses,
            optics.beam_energy_ev,
            settings.collection_semi_angle_mrad,
            semi_convergence_angle_mrad=optics.semi_convergence_angle_mrad,
        )
        of_element = owner[stack.specimen.numbers == atomic_numbers[own.element]]
        for index, cut in enumerate(stack.cuts):
            per_nm2 = np.count_nonzero(of_element < cut) / area_nm2
            found[index] += per_nm2 / BARN_PER_NM2 * per_ev * settings.step_ev
    if settings.mean_free_path_nm is None:
        return found
    return np.stack([_smeared(each, settings, t) for each, t in zip(found, stack.thicknesses_nm, strict=True)])


def _smeared(spectrum: NDArray[np.float64], settings: SpectrumFingerprint, thickness_nm: float) -> NDArray[np.float64]:
    """With the plasmons that the same electron excites besides."""
    step, mean = settings.step_ev, thickness_nm / (settings.mean_free_path_nm or 1.0)
    loss = np.arange(-4, int(_PLASMONS_KEPT * settings.plasmon_ev / step) + 4) * step
    shape = DrudePlasmon(settings.plasmon_ev, settings.plasmon_width_ev).loss_function(loss)
    single = shape / (np.sum(shape) * step) * mean
    low_loss = plural_spectrum(loss, single, zero_loss_peak(loss, step))
    return with_plural_losses(loss, spectrum, low_loss)
