"""Images, patterns and Ronchigrams as differentiable functions of the optics, in torch.

The same multislice as `simulate`'s, with the same transmission functions, written without changing arrays in place so
that torch can walk back through it. Its neighbour `lens_tensors` holds the parameters. Waves are computed in the
precision of the simulator, phases of the lens always in double.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint

from simulation.argument_kinds import kinds_checked
from simulation.backend import Backend
from simulation.coherence import FWHM_PER_SIGMA, focal_quadrature
from simulation.detectors import Detector, DetectorBank, check_detectors
from simulation.electron import wavelength_angstrom
from simulation.engine import Simulator
from simulation.errors import DeviceUnavailable, InvalidParameter
from simulation.lens_tensors import LensTensors, Number, chi
from simulation.multislice import Itinerary, Propagator, Transmissions
from simulation.probe import aperture_function, check_aperture
from simulation.scans import Scan
from simulation.source_blur import Lines, Raster, SourceBlur
from simulation.wave_grid import WaveGrid


class DifferentiableImages:
    """A specimen whose images have derivatives with respect to the optics and the probe's positions."""

    @kinds_checked
    def __init__(self, simulator: Simulator, beam_energy_ev: float) -> None:
        """Takes the simulator's grid, precision, phonons, tilt and kept transmission functions; a torch device."""
        self._prepared = simulator.prepared(beam_energy_ev)
        self._energy_ev = beam_energy_ev
        self._on, self._grid = self._prepared.on, self._prepared.grid
        if not self._on.name.startswith("torch"):
            raise DeviceUnavailable(
                f"{self._on.name} has no derivatives; make the simulator with device='cpu' or 'cuda'"
            )

    def image(self, lens: LensTensors, scan: Scan, detectors: Mapping[str, Detector]) -> dict[str, torch.Tensor]:
        """Signals (*scan shape, *detector shape) by detector, fractions of the beam, as `Simulator.image` has them.

        Patterns come with a `PixelatedDetector`. The derivative with respect to the source size is exact for the
        probes that this size takes; for another there may be others.
        """
        blur = self._blur(lens, scan)
        places_nm = scan.points_angstrom() / 10 if blur is None else blur.places_nm()
        flat = self.signals(lens, torch.as_tensor(places_nm, device=self._on.device), detectors)
        if blur is not None:
            flat = {name: _blurred(values, blur, lens.source_size_nm) for name, values in flat.items()}
        return {name: values.reshape(*scan.shape, *values.shape[1:]) for name, values in flat.items()}

    def signals(
        self, lens: LensTensors, points_nm: torch.Tensor, detectors: Mapping[str, Detector]
    ) -> dict[str, torch.Tensor]:
        """Signals (points, *detector shape) of probes at (n, 2) positions (x, y), which may require gradients too.

        Averaged over phonon configurations and focal spread; a point knows no source size.
        """
        bank = self._bank(lens, detectors)
        nodes = _focal_nodes(lens)
        total: dict[str, torch.Tensor] = {}
        for node, weight in nodes:
            for functions in self._prepared.transmissions:
                values = self._measured(node, points_nm, functions, bank, tuple(detectors))
                for name, value in zip(detectors, values, strict=True):
                    share = value * (weight / len(self._prepared.transmissions))
                    total[name] = total[name] + share if name in total else share
        return total

    def _bank(self, lens: LensTensors, detectors: Mapping[str, Detector]) -> DetectorBank:
        if lens.beam_energy_ev != self._energy_ev:
            raise InvalidParameter(
                f"the lens is at {lens.beam_energy_ev:g} eV and the specimen was prepared for {self._energy_ev:g} eV;"
                " make DifferentiableImages for that energy"
            )
        wavelength = wavelength_angstrom(lens.beam_energy_ev)
        cutoff_mrad = self._grid.cutoff_mrad(wavelength)
        check_aperture(lens.optics(), self._grid.cutoff_per_angstrom)
        check_detectors(detectors, cutoff_mrad)
        return DetectorBank(detectors, self._grid, wavelength, cutoff_mrad, self._on)

    def _blur(self, lens: LensTensors, scan: Scan) -> SourceBlur | None:
        size_nm = _plain(lens.source_size_nm)
        if size_nm == 0 and not _requires_grad(lens.source_size_nm):
            return None
        of_pixels = self._prepared.placement == "bilinear"
        return SourceBlur(scan, size_nm, lens.optics(), self._prepared.specimens[0], of_pixels=of_pixels)

    def _measured(
        self,
        lens: LensTensors,
        points_nm: torch.Tensor,
        functions: Transmissions,
        bank: DetectorBank,
        names: tuple[str, ...],
    ) -> list[torch.Tensor]:
        """In batches; walking back, each is propagated again, so that only one batch of waves is kept."""
        rows, columns = self._grid.shape_px
        count = self._on.batch_count(self._on.complex_bytes * rows * columns)
        walker = _Walker(lens, self._grid, functions, self._prepared.specimen_tilt_mrad, self._on)

        def exposed(points: torch.Tensor) -> tuple[torch.Tensor, ...]:
            waves = walker.exits(points)
            intensity = waves.real**2 + waves.imag**2
            measured = bank.measure(intensity.reshape(len(points), rows * columns))
            return tuple(measured[name] for name in names)

        parts: list[tuple[torch.Tensor, ...]] = []
        for part in torch.split(points_nm, count):
            made: Any = checkpoint(exposed, part, use_reentrant=False) if torch.is_grad_enabled() else exposed(part)
            parts.append(made)
        return [torch.cat([part[index] for part in parts]) for index in range(len(names))]


class _Walker:
    """Probes and their way through one specimen."""

    def __init__(
        self,
        lens: LensTensors,
        grid: WaveGrid,
        functions: Transmissions,
        specimen_tilt_mrad: tuple[float, float],
        on: Backend,
    ) -> None:
        self._lens, self._grid, self._functions, self._on = lens, grid, functions, on
        self._specimen_tilt_mrad = specimen_tilt_mrad
        self._upright = Propagator(lens.optics(), grid, functions.thickness_angstrom, on)

    def exits(self, points_nm: torch.Tensor) -> torch.Tensor:
        """Exit waves in Fourier space, (points, rows, columns)."""
        waves = self._incident(points_nm)
        itinerary = Itinerary.of(self._functions.order)
        steps: dict[int, torch.Tensor] = {}
        for crossed, index in itinerary.steps:
            if crossed:
                waves = waves * self._step(crossed, steps)
            waves = torch.fft.fft2(torch.fft.ifft2(waves) * self._functions.functions[index])
        return waves * self._step(itinerary.trailing, steps) if itinerary.trailing else waves

    def _incident(self, points_nm: torch.Tensor) -> torch.Tensor:
        amplitude = aperture_function(self._lens.optics(), self._grid).ravel()
        inside = np.flatnonzero(amplitude)
        ky, kx = (
            np.broadcast_to(k, self._grid.shape_px).ravel()[inside] for k in self._grid.frequencies_per_angstrom()
        )
        kx_there, ky_there = self._tensor(kx), self._tensor(ky)
        points = points_nm.to(device=self._on.device, dtype=torch.float64) * 10
        turns = points[:, 0, None] * kx_there + points[:, 1, None] * ky_there
        phase = -chi(self._lens, kx_there, ky_there) - 2 * pi * turns
        beams = self._tensor(amplitude[inside] / np.sqrt(np.sum(amplitude**2))) * torch.exp(1j * phase)
        rows, columns = self._grid.shape_px
        empty = torch.zeros(len(points), rows * columns, dtype=self._kind, device=self._on.device)
        filled = empty.index_copy(1, torch.as_tensor(inside, device=self._on.device), beams.to(self._kind))
        return filled.reshape(len(points), rows, columns)

    @property
    def _kind(self) -> torch.dtype:
        return torch.complex64 if self._on.precision == "single" else torch.complex128

    def _tensor(self, array: NDArray[np.float64]) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float64, device=self._on.device)

    def _step(self, count: int, known: dict[int, torch.Tensor]) -> torch.Tensor:
        """The propagator of so many slices; with a tilt that may require gradients."""
        if count not in known:
            known[count] = self._upright.through(count)
            if self._is_tilted():
                known[count] = known[count] * self._shear(count)
        return known[count]

    def _is_tilted(self) -> bool:
        tilts = (self._lens.tilt_x_mrad, self._lens.tilt_y_mrad)
        return any(self._specimen_tilt_mrad) or any(_requires_grad(each) or _plain(each) != 0 for each in tilts)

    def _shear(self, count: int) -> torch.Tensor:
        commanded = (self._lens.tilt_y_mrad, self._lens.tilt_x_mrad)
        ky, kx = (self._tensor(k) for k in self._grid.frequencies_per_angstrom())
        y, x = (
            torch.tan(torch.as_tensor(beam, dtype=torch.float64) * 1e-3) - np.tan(specimen * 1e-3)
            for beam, specimen in zip(commanded, self._specimen_tilt_mrad[::-1], strict=True)
        )
        phase = -2 * pi * count * self._functions.thickness_angstrom * (kx * x + ky * y)
        return torch.exp(1j * phase).to(self._kind)


def differentiable_ronchigram(lens: LensTensors, phase_rad: NDArray[np.float64], pixel_nm: float) -> torch.Tensor:
    """`ronchigram` of a thin film with derivatives: |FT(psi exp(i phase))|^2 in double precision, summing to 1.

    The whole diffraction plane, (rows, columns), zero angle at (rows // 2, columns // 2).
    """
    rows, columns = phase_rad.shape
    grid = WaveGrid((rows, columns), (rows * pixel_nm * 10, columns * pixel_nm * 10))
    check_aperture(lens.optics(), 0.5 / max(grid.sampling_angstrom))
    amplitude = aperture_function(lens.optics(), grid)
    ky, kx = (torch.as_tensor(k) for k in grid.frequencies_per_angstrom())
    nodes = _focal_nodes(lens)
    total = torch.zeros(rows, columns, dtype=torch.float64)
    for node, weight in nodes:
        spectrum = torch.as_tensor(amplitude / np.sqrt(np.sum(amplitude**2))) * torch.exp(-1j * chi(node, kx, ky))
        wave = torch.fft.fftshift(torch.fft.ifft2(spectrum)) * torch.as_tensor(np.exp(1j * phase_rad))
        exit_wave = torch.fft.fft2(wave)
        total = total + weight * torch.fft.fftshift(exit_wave.real**2 + exit_wave.imag**2)
    return total


def _focal_nodes(lens: LensTensors) -> list[tuple[LensTensors, float]]:
    if _plain(lens.focal_spread_nm) == 0 and not _requires_grad(lens.focal_spread_nm):
        return [(lens, 1.0)]
    quadrature = focal_quadrature(lens.beam_energy_ev, lens.semi_convergence_angle_mrad, _plain(lens.focal_spread_nm))
    return [
        (replace(lens, defocus_nm=lens.defocus_nm + sqrt(2) * node * lens.focal_spread_nm), weight)
        for node, weight in quadrature
    ]


def _blurred(values: torch.Tensor, blur: SourceBlur, source_size_nm: Number) -> torch.Tensor:
    """Pixels (n, ...) from the values of all probes, as `SourceBlur.sums` adds them up, with derivatives."""
    sigma_nm = torch.as_tensor(source_size_nm, dtype=torch.float64, device=values.device) / FWHM_PER_SIGMA
    layout = blur.layout
    if isinstance(layout, Raster):
        shape = len(layout.rows.places_nm), len(layout.columns.places_nm)
        rows = _along(values.reshape(*shape, *values.shape[1:]), layout.rows, sigma_nm, 0)
        return _along(rows, layout.columns, sigma_nm, 1).flatten(0, 1)
    weights = layout.weights(sigma_nm).to(values.dtype)
    clusters = values.reshape(len(layout.points_nm), len(weights), *values.shape[1:])
    return (weights.reshape(-1, *(1 for _ in clusters.shape[2:])) * clusters).sum(dim=1)


def _along(values: torch.Tensor, lines: Lines, sigma_nm: torch.Tensor, axis: int) -> torch.Tensor:
    """Pixels along an axis from its lines."""
    weights = lines.stencil.weights(sigma_nm).to(values.dtype)
    members = torch.as_tensor(lines.members, device=values.device)
    total = weights[0] * torch.index_select(values, axis, members[:, 0])
    for index in range(1, len(weights)):
        total = total + weights[index] * torch.index_select(values, axis, members[:, index])
    return total


def _plain(number: Number) -> float:
    return float(number.detach()) if isinstance(number, torch.Tensor) else float(number)


def _requires_grad(number: Number) -> bool:
    return isinstance(number, torch.Tensor) and number.requires_grad
