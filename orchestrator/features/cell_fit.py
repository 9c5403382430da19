"""How the model's cell lies in the lattice of a frame: orientation, origin, defocus and blur, by likelihood.

Which sub-lattice is which is never read off brightness: every inequivalent orientation is compared, at every origin,
with the cell that the forward model predicts for each detector. Neighbours: `lattice` finds the periodicity before,
`templates` turns the result into what a site should look like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from orchestrator.features.lattice import Picture, bragg_sums
from orchestrator.features.lattice_model import FourierTerms, PrimitiveCell

_GRID = 24
_BLUR_UNIT_NM = 0.02
_BLURS_NM = (0.0, 0.025, 0.04)
_DEFOCUS_PRIOR_NM = 8.0
_MODEL_ERROR_FRACTION = 0.08
_GAIN_AGREEMENT_STD = 0.15
_GAIN_STD = 0.3
_BACKGROUND_STD = 0.05
_LOG_BLACK_LEVEL_STD = 1.0


@dataclass(frozen=True, slots=True)
class CellTerms:
    """Fourier terms of the cell as measured by one detector: values (G,) counts per pixel, variance of each."""

    values: np.ndarray
    variance: float


@dataclass(frozen=True, slots=True)
class CellFit:
    """The cell laid in a frame.

    `basis_nm` (2, 2) primitive vectors as columns, `origin_nm` the model's first column, both in scan coordinates.
    `gain` (D,) counts per pixel and fraction of the beam, `background` (D,) counts per pixel beyond gain times model,
    `expected` (D, G) the model's terms at the fitted defocus and blur, `measured` (D, G) the frame's own, both about
    the origin. `log_likelihood_margin`: how much better than the best inequivalent orientation.
    """

    basis_nm: np.ndarray
    origin_nm: np.ndarray
    defocus_offset_nm: float
    blur_nm: float
    gain: np.ndarray
    background: np.ndarray
    expected: np.ndarray
    measured: np.ndarray
    variance: np.ndarray
    log_likelihood_margin: float


class TermSolver:
    """Least squares of half-plane Fourier terms (the constant first) on pixels kept, for any number of images.

    The normal matrix holds the transform of the mask at sums and differences of the terms, so gaps and the finite
    frame leak nothing from one term into another.
    """

    def __init__(self, like: Picture, keep: np.ndarray | None, indices: np.ndarray, basis_nm: np.ndarray) -> None:
        """`like` gives shape and pixel size, `keep` (rows, columns) bool the pixels, None for all."""
        self._like = like
        self._mask = None if keep is None else keep.astype(np.float32)
        self._g = indices @ np.linalg.inv(basis_nm)
        self._pixels = float(like.counts.size if keep is None else keep.sum())
        pairs, places = _index_differences(indices)
        gaps = self._gaps(pairs @ np.linalg.inv(basis_nm))
        same, mirrored = gaps[places[0]], gaps[places[1]]
        # counts = c0 + 2 Re sum c_h e_h: unknowns Re and Im of each term, equations from Re and Im of the sums.
        scale = np.where(np.arange(len(indices)) == 0, 0.5, 1.0)
        real_part = (same + mirrored) * scale
        imaginary_part = 1j * (same - mirrored) * scale
        matrix = np.block(
            [[np.real(real_part), np.real(imaginary_part)], [np.imag(real_part), np.imag(imaginary_part)]]
        )
        self._used = np.arange(2 * len(indices)) != len(indices)  # the constant has no imaginary part
        self._matrix = matrix[np.ix_(self._used, self._used)]
        self._matrix[np.diag_indices_from(self._matrix)] += 1e-6 * self._pixels

    def terms(self, counts: np.ndarray) -> CellTerms:
        """Terms of an image (rows, columns)."""
        masked = counts if self._mask is None else counts * self._mask
        sums = bragg_sums(masked, self._like.x_nm, self._like.y_nm, self._g)
        count = len(sums)
        solution = np.zeros(2 * count)
        solution[self._used] = np.linalg.solve(self._matrix, np.concatenate([np.real(sums), np.imag(sums)])[self._used])
        values = solution[:count] + 1j * solution[count:]
        return CellTerms(values, max(float(values[0].real), 1e-9) / self._pixels)

    def _gaps(self, g_per_nm: np.ndarray) -> np.ndarray:
        if self._mask is not None:
            return bragg_sums(self._mask, self._like.x_nm, self._like.y_nm, g_per_nm)
        along_x = np.exp(-2j * np.pi * np.outer(self._like.x_nm, g_per_nm[:, 0])).sum(axis=0)
        along_y = np.exp(-2j * np.pi * np.outer(self._like.y_nm, g_per_nm[:, 1])).sum(axis=0)
        return along_x * along_y


def _index_differences(indices: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Distinct n_h - n_k and n_h + n_k, and where each pair's difference and sum stand among them."""
    count = len(indices)
    minus = (indices[:, None] - indices[None]).reshape(-1, 2)
    plus = (indices[:, None] + indices[None]).reshape(-1, 2)
    distinct, where = np.unique(np.concatenate([minus, plus]), axis=0, return_inverse=True)
    where = where.reshape(2, count, count)
    return distinct, (where[0], where[1])


ExpectedTerms = Callable[[float, float], np.ndarray]
"""(defocus offset in nm, rotation of the crystal in degrees) -> (D, G) terms by detector, fraction of the beam."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is fitted: terms (D, G) in counts per pixel, their variances (D,), and the dose (None: unknown unit)."""

    values: np.ndarray
    variance: np.ndarray
    electrons_per_px: float | None

    @classmethod
    def of(cls, terms: Sequence[CellTerms], electrons_per_px: float | None) -> Measurement:
        """Stack the detectors."""
        values = np.array([each.values for each in terms])
        return cls(values, np.array([each.variance for each in terms]), electrons_per_px)


@dataclass(frozen=True, slots=True)
class _Candidate:
    score: float
    orientation: int
    shift: np.ndarray
    defocus_nm: float
    blur_nm: float


class CellFitter:
    """Compares the measured cell with the predicted one over orientations, origins, defocus and blur."""

    def __init__(self, cell: PrimitiveCell, terms: FourierTerms) -> None:
        self._cell = cell
        self._terms = terms
        self._radius2 = (terms.q_per_nm**2).sum(axis=1)
        axis = np.arange(_GRID) / _GRID
        self._origins = np.stack([grid.ravel() for grid in np.meshgrid(axis, axis)], axis=1)
        self._phases = np.exp(2j * np.pi * self._origins @ terms.indices.T)

    def fit(
        self,
        measured: Measurement,
        matrix: np.ndarray,
        expected: ExpectedTerms,
        *,
        near_rotation_deg: float,
        fixed_orientation: bool,
        defocus_nm: Sequence[float],
    ) -> CellFit:
        """Lay the cell; `matrix` takes crystal to scan axes up to a rotation of the lattice onto itself.

        Among rotations that leave the structure as it is, the one nearest to `near_rotation_deg` is reported.
        With `fixed_orientation` only the given matrix is considered (an earlier frame has settled it).
        """
        basis = matrix @ self._cell.vectors_nm
        bases = [basis]
        if not fixed_orientation:
            bases = [self._nearest(matrix, group, near_rotation_deg) for group in self._cell.orientations]
        turned = [
            Measurement(self._reindexed(measured.values, basis, other), measured.variance, measured.electrons_per_px)
            for other in bases
        ]
        best = self._search(turned, bases, expected, defocus_nm)
        chosen = max(best, key=lambda candidate: candidate.score)
        others = [candidate.score for candidate in best if candidate.orientation != chosen.orientation]
        margin = chosen.score - max(others) if others else float("inf")
        return self._polish(turned[chosen.orientation], bases[chosen.orientation], expected, chosen, margin)

    def _nearest(self, matrix: np.ndarray, group: tuple[np.ndarray, ...], near_deg: float) -> np.ndarray:
        bases = [matrix @ self._cell.vectors_nm @ turn for turn in group]
        away = [abs((rotation_deg(basis, self._cell) - near_deg + 180.0) % 360.0 - 180.0) for basis in bases]
        return bases[int(np.argmin(np.round(away, 3)))]

    def _reindexed(self, values: np.ndarray, old_basis: np.ndarray, new_basis: np.ndarray) -> np.ndarray:
        """Terms (D, G) by index in the new basis, n_old = (old)^T (new)^-T n_new; zero where not measured."""
        change = np.round(np.linalg.solve(new_basis, old_basis))
        wanted = self._terms.indices @ change
        known = {(int(i), int(j)): number for number, (i, j) in enumerate(self._terms.indices)}
        turned = np.zeros_like(values)
        for number, (i, j) in enumerate(wanted.astype(int).tolist()):
            if (i, j) in known:
                turned[:, number] = values[:, known[i, j]]
            elif (-i, -j) in known:
                turned[:, number] = np.conj(values[:, known[-i, -j]])
        return turned

    def _search(
        self,
        turned: list[Measurement],
        bases: list[np.ndarray],
        expected: ExpectedTerms,
        defocus_nm: Sequence[float],
    ) -> list[_Candidate]:
        """The best of each orientation: a grid of defocus, then halved steps about the best down to 1 nm."""
        best: dict[int, _Candidate] = {}
        tried: set[float] = set()
        queue = list(defocus_nm)
        step_nm = abs(defocus_nm[1] - defocus_nm[0]) if len(defocus_nm) > 1 else 0.0
        while queue:
            for offset in queue:
                tried.add(offset)
                for number, basis in enumerate(bases):
                    predicted = expected(offset, rotation_deg(basis, self._cell))
                    for blur in _BLURS_NM:
                        found = self._best_origin(turned[number], self._blurred(predicted, blur))
                        score = found[0] - 0.5 * (offset / _DEFOCUS_PRIOR_NM) ** 2
                        if number not in best or score > best[number].score:
                            best[number] = _Candidate(score, number, found[1], offset, blur)
            step_nm /= 2
            centre = max(best.values(), key=lambda candidate: candidate.score).defocus_nm
            queue = [] if step_nm < 1.0 else sorted({centre - step_nm, centre + step_nm} - tried)
        return list(best.values())

    def _blurred(self, predicted: np.ndarray, blur_nm: float) -> np.ndarray:
        return predicted * np.exp(-2 * (np.pi * blur_nm) ** 2 * self._radius2)

    def _best_origin(self, data: Measurement, predicted: np.ndarray) -> tuple[float, np.ndarray]:
        score = log_likelihood(data, predicted, self._phases)
        top = int(np.argmax(score))
        return float(score[top]), self._origins[top]

    def _polish(
        self, data: Measurement, basis_nm: np.ndarray, expected: ExpectedTerms, start: _Candidate, margin: float
    ) -> CellFit:
        predicted = expected(start.defocus_nm, rotation_deg(basis_nm, self._cell))
        indices = self._terms.indices

        def loss(parameters: np.ndarray) -> float:
            phases = np.exp(2j * np.pi * (indices @ parameters[:2]))[None]
            return -float(log_likelihood(data, self._blurred(predicted, _BLUR_UNIT_NM * parameters[2]), phases)[0])

        first = np.array([*start.shift, start.blur_nm / _BLUR_UNIT_NM + 0.3])
        simplex = first + np.array([[0, 0, 0], [0.02, 0, 0], [0, 0.02, 0], [0, 0, 0.5]])
        options = {"initial_simplex": simplex, "xatol": 2e-4, "fatol": 1e-3, "maxfev": 200}
        found = scipy.optimize.minimize(loss, first, method="Nelder-Mead", options=options)
        shift, blur_nm = found.x[:2], abs(_BLUR_UNIT_NM * float(found.x[2]))
        predicted = self._blurred(predicted, blur_nm)
        measured = data.values * np.exp(2j * np.pi * (indices @ shift))
        gain = _gains(measured, predicted)
        return CellFit(
            basis_nm=basis_nm,
            origin_nm=basis_nm @ (shift - np.round(shift)),
            defocus_offset_nm=start.defocus_nm,
            blur_nm=blur_nm,
            gain=gain,
            background=np.real(measured[:, 0]) - gain * np.real(predicted[:, 0]),
            expected=predicted,
            measured=measured,
            variance=data.variance,
            log_likelihood_margin=margin,
        )


def rotation_deg(basis_nm: np.ndarray, cell: PrimitiveCell) -> float:
    """Angle of the crystal's x axis in the scan, from +x towards +y (the rotation in the polar decomposition)."""
    matrix = basis_nm @ np.linalg.inv(cell.vectors_nm)
    return float(np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])))


def log_likelihood(data: Measurement, predicted: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Profile log-likelihood (origins,) of the terms beyond the constant, gain of each detector free and positive.

    Of Student's form, -nu/2 log(1 + chi2/nu): Poisson noise decides while it is the larger error, and a detector whose
    model is wrong in detail cannot outvote the other by its counts alone. Priors keep gains physical: detectors see one
    dose (their gains agree within 15 %), contrast is near what that dose gives, and no background is negative.
    """
    score = np.zeros(len(phases))
    freedom = 2.0 * (data.values.shape[1] - 1)
    gains: list[np.ndarray] = []
    for terms, noise, model in zip(data.values, data.variance, predicted, strict=True):
        strength = max(float((np.abs(model[1:]) ** 2).sum()), 1e-30)
        agreement = np.maximum(np.real(phases[:, 1:] @ (terms[1:] * np.conj(model[1:]))), 0.0)
        chi2 = 2 * (float((np.abs(terms[1:]) ** 2).sum()) - agreement**2 / strength) / noise
        score -= 0.5 * freedom * np.log1p(np.maximum(chi2, 0.0) / freedom)
        gains.append(agreement / strength)
    if data.electrons_per_px is None:
        return score + _log_prior_of_unknown_unit(np.array(gains), data, predicted)
    return score + _log_prior(np.array(gains), data, predicted)


def _log_prior(gains: np.ndarray, data: Measurement, predicted: np.ndarray) -> np.ndarray:
    """(origins,) of gains (D, origins)."""
    predicted_mean = np.real(predicted[:, :1])
    shortage = np.minimum(1 - gains * predicted_mean / np.maximum(np.real(data.values[:, :1]), 1e-12), 0.0)
    logarithm = np.log(np.maximum(gains / (data.electrons_per_px or 1.0), 1e-3))
    mean = logarithm.mean(axis=0)
    score = ((shortage / _BACKGROUND_STD) ** 2).sum(axis=0)
    score += ((logarithm - mean) ** 2).sum(axis=0) / _GAIN_AGREEMENT_STD**2
    return -0.5 * (score + (mean / _GAIN_STD) ** 2)


def _log_prior_of_unknown_unit(gains: np.ndarray, data: Measurement, predicted: np.ndarray) -> np.ndarray:
    """(origins,) of gains (D, origins): the model explains little more than all there is.

    A black level that was moved lets it explain more, an e-fold by one standard deviation. Without this a model far
    from focus, its faint contrast reversed and its gain a hundred times too high, fits an image in any unit.
    """
    share = gains * np.real(predicted[:, :1]) / np.maximum(np.real(data.values[:, :1]), 1e-12)
    return -0.5 * (np.log(np.maximum(share, 1.0)) ** 2).sum(axis=0) / _LOG_BLACK_LEVEL_STD**2


def _gains(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    overlap = np.real(measured[:, 1:] * np.conj(predicted[:, 1:])).sum(axis=1)
    return np.maximum(overlap, 0.0) / np.maximum((np.abs(predicted[:, 1:]) ** 2).sum(axis=1), 1e-30)


def host_terms(fit: CellFit) -> np.ndarray:
    """Terms (D, G) of the undisturbed lattice: the frame's own average cell, held to the model where that is noisy.

    Inverse-variance mean of the measured terms and gain times model, whose error is taken as 8 % of the strongest
    term; with thousands of cells in the frame the measurement wins, so host residuals vanish by construction.
    """
    model = fit.gain[:, None] * fit.expected
    model[:, 0] += fit.background
    error2 = (_MODEL_ERROR_FRACTION * np.abs(model[:, 1:]).max(axis=1)) ** 2
    share = error2 / np.maximum(error2 + fit.variance, 1e-30)
    terms = share[:, None] * fit.measured + (1 - share[:, None]) * model
    terms[:, 0] = fit.measured[:, 0]
    return terms
