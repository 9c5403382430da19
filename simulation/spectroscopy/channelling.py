"""How much of the probe meets the atoms of an element on its way through a crystal: maps of core losses and X-rays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from ase.data import atomic_numbers
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.argument_kinds import kinds_checked
from simulation.backend import Array, Backend, backend
from simulation.errors import InvalidParameter
from simulation.multislice import Itinerary, Propagator, Transmissions, transmissions
from simulation.potential import PotentialModel
from simulation.probe import check_aperture, position_phases, probe_spectrum
from simulation.scans import Scan
from simulation.slices import Slices, slices_of
from simulation.specimens import Atoms, Specimen
from simulation.wave_grid import WaveGrid


@kinds_checked
def atoms_seen_per_nm2(
    atoms: Atoms,
    optics: Optics,
    scan: Scan,
    element: str,
    *,
    interaction_rms_nm: float = 0.01,
    sampling_nm: float = 0.005,
    grid_shape_px: tuple[int, int] | None = None,
    slice_thickness_nm: float = 0.2,
    parametrization: str = "lobato",
    device: str = "auto",
) -> xr.DataArray:
    """Probe intensity at the atoms of an element, summed over all of them: atoms per nm2, dims of the scan.

    Times a cross-section it is the number of events for each electron. Sum over atoms of the intensity (1/nm2, 1 in
    all) just before the atom's slice, convolved with a Gaussian whose standard deviation along x and y is
    `interaction_rms_nm`: thermal motion and the reach of the interaction (`delocalisation_nm` / 1.18 / sqrt(2) for
    core losses, near thermal motion for X-rays). A very wide probe and any specimen give number / area. Elastic
    scattering after the event is ignored, as for a detector that collects everything (Dwyer, Ultramicroscopy 104
    (2005) 141, treats what is left out); phonons only through the Gaussian.
    """
    if element not in atomic_numbers:
        raise InvalidParameter(f"unknown element {element!r}; give a chemical symbol such as 'Se'")
    if not interaction_rms_nm >= 0:
        raise InvalidParameter(f"interaction_rms_nm = {interaction_rms_nm} must not be negative")
    specimen, on = Specimen.of(atoms), backend(device)
    width, height, _ = specimen.cell_angstrom
    grid = WaveGrid.for_cell(width, height, sampling_nm, grid_shape_px)
    check_aperture(optics, grid.cutoff_per_angstrom)
    model = PotentialModel(parametrization)
    functions = transmissions(specimen, grid, slice_thickness_nm, model, optics.beam_energy_ev, on)
    maps = _element_maps(slices_of(specimen, slice_thickness_nm), grid, atomic_numbers[element], interaction_rms_nm)
    totals = [_seen(waves, functions, maps, optics, on) for waves in _incident(optics, scan, grid, on)]
    values = np.concatenate(totals).reshape(scan.shape)
    coordinates = {name: (dim, at, {"units": "nm"}) for name, (dim, at) in scan.coordinates().items()}
    notes = {"units": "atoms per nm2", "element": element, "interaction_rms_nm": interaction_rms_nm}
    return xr.DataArray(values, dims=scan.dims, coords=coordinates, name="atoms_seen", attrs=notes)


def _incident(optics: Optics, scan: Scan, grid: WaveGrid, on: Backend) -> Iterator[Array]:
    """Batches of probes in Fourier space."""
    points = scan.points_angstrom()
    base = on.asarray(probe_spectrum(optics, grid).astype(np.complex64))
    count = on.batch_count(8 * grid.shape_px[0] * grid.shape_px[1])
    for start in range(0, len(points), count):
        along_y, along_x = position_phases(grid, points[start : start + count])
        shift_y = on.asarray(along_y.astype(np.complex64))[:, :, None]
        yield base * shift_y * on.asarray(along_x.astype(np.complex64))[:, None, :]


def _seen(
    waves: Array, functions: Transmissions, maps: list[NDArray[np.float32] | None], optics: Optics, on: Backend
) -> NDArray[np.float64]:
    """Sum over slices of intensity times map for each wave; the waves are those before each slice."""
    propagator = Propagator(optics, functions.grid, functions.thickness_angstrom, on)
    rows, columns = functions.grid.shape_px
    total = np.zeros(waves.shape[0])
    for crossed, index in Itinerary.of(functions.order).steps:
        if crossed:
            waves = waves * propagator.through(crossed)
        here = on.ifft2(waves)
        map_of_element = maps[index]
        if map_of_element is not None:
            intensity = on.xp.real(here) ** 2 + on.xp.imag(here) ** 2
            flat = on.xp.reshape(intensity, (intensity.shape[0], rows * columns))
            # sum |psi|^2 over the grid is 1 / pixels, for numpy's transforms
            seen = on.xp.matmul(flat, on.asarray(map_of_element.ravel()))
            total += on.to_numpy(seen).astype(np.float64) * rows * columns
        waves = on.fft2(here * functions.functions[index])
    return total


def _element_maps(slices: Slices, grid: WaveGrid, number: int, rms_nm: float) -> list[NDArray[np.float32] | None]:
    """For each distinct slice the density of that element, atoms per nm2, (rows, columns); None without any."""
    ky, kx = grid.frequencies_per_angstrom()
    blur = np.exp(-2 * (np.pi * rms_nm * 10) ** 2 * (ky**2 + kx**2))
    area_nm2 = grid.extent_angstrom[0] * grid.extent_angstrom[1] / 100
    maps: list[NDArray[np.float32] | None] = []
    for each in slices.distinct:
        xy = each.xy_angstrom[each.numbers == number]
        if len(xy) == 0:
            maps.append(None)
            continue
        along_y, along_x = position_phases(grid, xy)
        spectrum = np.einsum("ny,nx->yx", along_y, along_x) * blur
        density = np.fft.ifft2(spectrum).real * spectrum.size / area_nm2
        maps.append(density.astype(np.float32))
    return maps
