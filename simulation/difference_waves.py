"""What changed sites add to the waves of a perfect crystal, as a sum over few waves.

Where a slice transmits t' instead of t, the wave psi_k that plane wave k has become there gains (t' - t) psi_k. These
sources live within a few angstrom of the changed sites, and the aperture holds few waves that differ there: the sources
of all plane waves are sums of some tens of fields X_j, with the share B_jk of plane wave k in each. Only the X_j are
propagated, Bloch vector by Bloch vector, and meet changed slices further down as they are. Sampling the sources
with random sums finds the X_j (Halko, Martinsson and Tropp 2011); what is left out is measured by further such sums.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.backend import Array, Backend
from simulation.bloch_waves import BlochWaves
from simulation.device_batches import in_batches
from simulation.progress import steps
from simulation.slices import EMPTY

_SAMPLES_PER_BLOCK = 24
_SHARE_OF_ENERGY_OUTSIDE = 0.1
"""Of what is left out of the waves, squared: pixels where the transmissions hardly differ."""
_SAMPLED_BEYOND = 0.5
"""Sampling goes on to this share of the tolerance, so that what is cut afterwards is known."""
_MERGED_AWAY = 0.5
"""Of the amplitude left out: how much all mergers together may add to it."""
_WEAK_SHARE = 0.01
"""A slice may leave out this share of what the one that differs most does, however little it differs itself."""
_ROUNDING_SHARE = 1e-6
SMALLEST_TOLERANCE = {"single": 1e-3, "double": 1e-6}
"""Below this, rounding decides which waves are taken."""
LARGEST_TOLERANCE = 0.5
"""Above this no wave need be left."""


class DifferenceWaves:
    """Waves X_j at one depth, `exits` (waves, pixels) in Fourier space, and `amplitudes` B (waves, plane waves).

    Ordered by their strength. `pixels` are those of the `BlochVectors`.
    """

    def __init__(self, crystal_waves: BlochWaves, tolerance: float, on: Backend) -> None:
        """`tolerance`: amplitude left out over the amplitude of all sources, all plane waves alike."""
        self._crystal, self._tolerance, self._on = crystal_waves, tolerance, on
        vectors = crystal_waves.vectors
        self._grid, self._pixels = vectors.grid, on.asarray(vectors.pixels)
        self._edges = np.cumsum([0, *(len(columns) for columns in vectors.columns)]).tolist()
        self.exits: Array = on.asarray(np.zeros((0, len(vectors.pixels)), on.complex_type))
        self.amplitudes: NDArray[Any] = np.zeros((0, len(vectors.beams)), on.complex_type)
        self._energy = self._left_out = self._merged_away = 0.0
        self._random = np.random.default_rng(0)

    def cross(self, stop: int) -> None:
        """Crystal and differences to the entrance of slice `stop`, the slice where they are having been transmitted."""
        order = (EMPTY, *self._crystal.order[self._crystal.depth + 1 : stop])
        if len(self.amplitudes):
            parts = [
                self._crystal.through(self.exits[:, start:end], index, order)
                for index, (start, end) in enumerate(steps(self._spans(), "Bloch vectors of differences"))
            ]
            self.exits = self._on.xp.concat(parts, axis=1)
        self._crystal.cross(stop)

    def meet(self, changed: Array, perfect: Array, strength: float = 1.0) -> None:
        """The slice at this depth transmits `changed` (rows, columns) instead of `perfect`.

        `strength`: power of the difference over that of the slice that differs most. Little is added where it is small.
        """
        if len(self.amplitudes):
            self.exits = self._batched(self.exits, lambda waves: self._spectra(self._fields(waves) * changed))
        found = self._sources(changed - perfect, self._tolerance * max(1.0, _WEAK_SHARE / strength) ** 0.5)
        if found is None:
            return
        alone = not len(self.amplitudes)
        self.exits = self._on.xp.concat([self.exits, found[0]], axis=0)
        self.amplitudes = np.concatenate([self.amplitudes, found[1]])
        if not alone:
            self._merge()

    @property
    def wave_count(self) -> int:
        """Waves that are summed."""
        return len(self.amplitudes)

    def leading_count(self, factor: float) -> int:
        """How many of the waves leave out `factor` times the tolerance."""
        energies = np.sum(np.abs(self.amplitudes) ** 2, axis=1)
        left_out = self._left_out + self._merged_away
        return min(self.wave_count, _fewest(energies, left_out, (factor * self._tolerance) ** 2 * self._energy))

    def _sources(self, difference: Array, tolerance: float) -> tuple[Array, NDArray[Any]] | None:
        """Orthogonal sources, and the share of each plane wave in them; None where nothing (of weight) differs."""
        on, xp = self._on, self._on.xp
        support = self._support(on.to_numpy(difference), tolerance)
        if not len(support) or tolerance >= 1:
            return None
        parts, where = self._crystal.parts(), on.asarray(support)
        factor = xp.take(xp.reshape(difference, (-1,)), where)
        basis, rest = self._sampled(parts, factor, where, tolerance)
        shares = self._shares(basis, parts, factor, where)
        energy, turned = np.linalg.eigh((shares @ shares.conj().T).astype(np.complex128))
        energy, turned = energy[::-1].clip(0), turned[:, ::-1].astype(on.complex_type)
        whole = float(energy.sum()) + rest
        kept = _fewest(energy, rest, tolerance**2 * whole)
        self._energy += whole
        self._left_out += rest + float(energy[kept:].sum())
        turn = turned[:, :kept]
        fields = xp.matmul(on.asarray(np.ascontiguousarray(turn.T)), basis)
        return self._batched(fields, lambda own: self._spectra(self._placed(own, where))), turn.conj().T @ shares

    def _support(self, difference: NDArray[Any], tolerance: float) -> NDArray[np.int64]:
        """Pixels where the transmissions differ, the fewest."""
        power = np.abs(difference.ravel().astype(np.complex128)) ** 2
        order = np.argsort(-power, kind="stable")
        outside = power.sum() - np.cumsum(power[order])
        limit = (_SHARE_OF_ENERGY_OUTSIDE * tolerance) ** 2 * power.sum()
        if power.max() <= _ROUNDING_SHARE**2:
            return np.zeros(0, dtype=np.int64)
        return np.sort(order[: int(np.argmax(outside <= limit)) + 1])

    def _sampled(self, parts: list[Array], factor: Array, where: Array, tolerance: float) -> tuple[Array, float]:
        """Orthonormal fields (n, places) that span the sources, and the energy of all plane waves they leave out."""
        on, xp = self._on, self._on.xp
        beams = self.amplitudes.shape[1]
        basis: Array = on.asarray(np.zeros((0, int(factor.shape[0])), on.complex_type))
        while True:
            draws = self._random.standard_normal((_SAMPLES_PER_BLOCK, beams)).astype(on.complex_type)
            sampled = self._illuminated(draws, parts, factor, where)
            rest = sampled
            for _ in range(2):  # once more, against rounding
                rest = rest - xp.matmul(xp.matmul(rest, xp.conj(xp.matrix_transpose(basis))), basis)
            left_out, whole = (float(xp.sum(xp.real(part) ** 2 + xp.imag(part) ** 2)) for part in (rest, sampled))
            if left_out <= (_SAMPLED_BEYOND * tolerance) ** 2 * whole or basis.shape[0] >= min(beams, len(where)):
                return basis, left_out / _SAMPLES_PER_BLOCK
            more, _ = xp.linalg.qr(xp.matrix_transpose(rest))
            basis = xp.concat([basis, xp.matrix_transpose(more)], axis=0)

    def _illuminated(self, draws: NDArray[Any], parts: list[Array], factor: Array, where: Array) -> Array:
        """Sources of sums of plane waves, (n, places)."""
        on, xp = self._on, self._on.xp
        waves = xp.concat(
            [
                xp.matmul(on.asarray(np.ascontiguousarray(draws[:, rows])), part)
                for rows, part in zip(self._crystal.vectors.rows, parts, strict=True)
            ],
            axis=1,
        )
        return self._batched(waves, lambda own: xp.take(self._flat(self._fields(own)), where, axis=1)) * factor

    def _shares(self, basis: Array, parts: list[Array], factor: Array, where: Array) -> NDArray[Any]:
        """How much of each field the source of each plane wave holds, (n, plane waves)."""
        on, xp = self._on, self._on.xp
        seen = self._batched(
            xp.conj(basis) * factor,
            lambda own: xp.take(self._flat(on.ifft2(self._placed(own, where))), self._pixels, axis=1),
        )
        shares = np.empty((basis.shape[0], self.amplitudes.shape[1]), on.complex_type)
        for rows, part, (start, end) in zip(self._crystal.vectors.rows, parts, self._spans(), strict=True):
            shares[:, rows] = on.to_numpy(xp.matmul(seen[:, start:end], xp.matrix_transpose(part)))
        return shares

    def _merge(self) -> None:
        """Waves and shares again orthogonal, and the weakest left out."""
        on, xp = self._on, self._on.xp
        gram = on.to_numpy(xp.matmul(self.exits, xp.conj(xp.matrix_transpose(self.exits)))).astype(np.complex128)
        size, turned = np.linalg.eigh(gram)
        good = size > _ROUNDING_SHARE * size.max()
        size, turned = np.sqrt(size[good] / size.max()), turned[:, good]
        shares = size[:, None] * (turned.T @ self.amplitudes)
        energy, mixed = np.linalg.eigh(shares @ shares.conj().T)
        energy, mixed = energy[::-1].clip(0), mixed[:, ::-1]
        kept = _fewest(energy, self._merged_away, (_MERGED_AWAY * self._tolerance) ** 2 * self._energy)
        self._merged_away += float(energy[kept:].sum())
        mixed = mixed[:, :kept]
        self.amplitudes = (mixed.conj().T @ shares).astype(on.complex_type)
        back = (mixed.T / size) @ turned.conj().T
        self.exits = xp.matmul(on.asarray(back.astype(on.complex_type)), self.exits)

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self._edges[:-1], self._edges[1:], strict=True))

    def _batched(self, waves: Array, made: Any) -> Array:
        """`made` of some rows at a time."""
        rows, columns = self._grid.shape_px
        count, total = self._on.batch_count(self._on.complex_bytes * rows * columns), int(waves.shape[0])
        one_by_one, starts = replace(self._on, threads=1), range(0, total, count)
        parts = in_batches(lambda start, stop: made(waves[start:stop]), starts, count, total, one_by_one)
        return self._on.xp.concat(list(parts), axis=0)

    def _flat(self, fields: Array) -> Array:
        return self._on.xp.reshape(fields, (fields.shape[0], -1))

    def _placed(self, values: Array, where: Array) -> Array:
        """Values (n, places) on the whole grid, zero elsewhere."""
        rows, columns = self._grid.shape_px
        xp = self._on.xp
        whole = xp.zeros((values.shape[0], rows * columns), dtype=values.dtype, device=self._on.device)
        whole[:, where] = values
        return xp.reshape(whole, (-1, rows, columns))

    def _fields(self, waves: Array) -> Array:
        """On the whole grid, from Fourier space."""
        return self._on.ifft2(self._placed(waves, self._pixels))

    def _spectra(self, fields: Array) -> Array:
        """In Fourier space up to the antialias cutoff."""
        return self._on.xp.take(self._flat(self._on.fft2(fields)), self._pixels, axis=1)


def _fewest(energies: NDArray[np.float64], outside: float, limit: float) -> int:
    """How many of the leading energies must be kept so that the others and `outside` stay within the limit."""
    rest = outside + np.cumsum(energies[::-1])[::-1]
    return max(1, int(np.count_nonzero(rest > limit)))
