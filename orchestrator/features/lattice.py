"""The lattice in a frame: reciprocal vectors from the spectrum, then shear and drift from the phases of blocks.

Coordinates are the scan's own: nm about the frame centre, x along rows, y down the array. Only the periodicity is
found here; which column is which is decided in `cell_fit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

SCALE_RANGE_FRACTION = 0.04
_SHEAR_RANGE_FRACTION = 0.12
_SIGNIFICANT_POWER = 12.0
_SHORTEST_TRANSFORM_PX = 256
_BLOCK_NM = 4.0
_MOST_BLOCKS = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """One detector's counts, (rows, columns) float32, and the size of a pixel; helper coordinates are derived."""

    counts: np.ndarray
    pixel_size_nm: float

    @property
    def x_nm(self) -> np.ndarray:
        """(columns,) about the frame centre."""
        count = self.counts.shape[1]
        return (np.arange(count) - (count - 1) / 2) * self.pixel_size_nm

    @property
    def y_nm(self) -> np.ndarray:
        """(rows,) about the frame centre."""
        count = self.counts.shape[0]
        return (np.arange(count) - (count - 1) / 2) * self.pixel_size_nm


@dataclass(frozen=True, slots=True)
class Periodicity:
    """A lattice without its content.

    `matrix` (2, 2) takes the model's crystal axes to the scan's; `power` is the mean strength of the lattice's
    spectral peaks over the noise (1 where there is none); `rms_nm` how far blocks of the frame stray from it.
    """

    matrix: np.ndarray
    power: float
    rms_nm: float = 0.0

    @property
    def is_significant(self) -> bool:
        """Whether this is a lattice and not noise."""
        return self.power > _SIGNIFICANT_POWER


def hann(count: int) -> np.ndarray:
    """Periodic-free Hann window that is above zero everywhere, float32."""
    return np.sin(np.pi * (np.arange(count, dtype=np.float32) + 0.5) / count) ** 2


def bragg_sums(counts: np.ndarray, x_nm: np.ndarray, y_nm: np.ndarray, g_per_nm: np.ndarray) -> np.ndarray:
    """Sums (G,) of counts * exp(-2 pi i g.r); a frequency is a row times a column, so two small products suffice."""
    along_x = np.exp(-2j * np.pi * np.outer(x_nm, g_per_nm[:, 0])).astype(np.complex64)
    along_y = np.exp(-2j * np.pi * np.outer(y_nm, g_per_nm[:, 1])).astype(np.complex64)
    counts = np.asarray(counts, dtype=np.float32)
    partial = counts @ along_x.real + 1j * (counts @ along_x.imag)
    return np.einsum("rg,rg->g", along_y, partial, dtype=np.complex128)


def synthesise(terms: np.ndarray, x_nm: np.ndarray, y_nm: np.ndarray, g_per_nm: np.ndarray) -> np.ndarray:
    """The image (rows, columns) float32 of half-plane Fourier terms, the constant first."""
    doubled = terms * np.where(np.arange(len(terms)) == 0, 1.0, 2.0)
    along_x = np.exp(2j * np.pi * np.outer(g_per_nm[:, 0], x_nm)).astype(np.complex64)
    along_y = (np.exp(2j * np.pi * np.outer(y_nm, g_per_nm[:, 1])) * doubled).astype(np.complex64)
    return along_y.real @ along_x.real - along_y.imag @ along_x.imag


def find_periodicity(
    pictures: list[Picture],
    q_per_nm: np.ndarray,
    weights: np.ndarray,
    turn_deg: float,
    scale_range_fraction: float = SCALE_RANGE_FRACTION,
) -> Periodicity:
    """The similarity (rotation up to `turn_deg`, scale in range) whose spectral peaks are strongest, then affine.

    `q_per_nm` (G, 2) are the strongest frequencies of the model, `weights` (G,) their expected power.
    """
    spectra = [_spectrum(picture) for picture in pictures]
    power = sum(spectrum for spectrum, _ in spectra)
    assert not isinstance(power, int)
    step_per_nm = spectra[0][1]
    radius = float(np.linalg.norm(q_per_nm, axis=1).max())
    # The step is set by the frame, not by the padded transform.
    resolution = 0.5 / (max(pictures[0].counts.shape) * pictures[0].pixel_size_nm * radius)
    turns = np.arange(0, np.radians(turn_deg), resolution) if turn_deg else np.zeros(1)
    reach = scale_range_fraction if turn_deg else 0.0
    scales = np.exp(np.arange(-reach, reach + resolution / 2, resolution))
    turn, scale = (grid.ravel() for grid in np.meshgrid(turns, scales))
    cosine, sine = np.cos(turn) / scale, np.sin(turn) / scale
    score = np.zeros(len(turn))
    spread = scipy.ndimage.maximum_filter(power, 3, mode="wrap") if turn_deg else power
    for (q_x, q_y), weight in zip(q_per_nm, weights, strict=True):
        score += weight * _look_up(spread, step_per_nm, cosine * q_x - sine * q_y, sine * q_x + cosine * q_y)
    best = int(np.argmax(score))
    rotation = np.array([[cosine[best], -sine[best]], [sine[best], cosine[best]]])
    found = float(score[best] / weights.sum() / len(pictures))
    matrix = np.linalg.inv(rotation.T)
    if turn_deg == 0:
        return Periodicity(matrix, found)
    # Shear first from the shortest frequencies, which it moves least, then from all.
    extent_nm = max(pictures[0].counts.shape) * pictures[0].pixel_size_nm
    shortest = np.argsort(np.linalg.norm(q_per_nm, axis=1), kind="stable")[:3]
    for used, reach_fraction in (
        (shortest, _SHEAR_RANGE_FRACTION),
        (np.arange(len(q_per_nm)), 0.5 / extent_nm / radius),
    ):
        g = q_per_nm[used] @ np.linalg.inv(matrix)
        reach = reach_fraction * np.linalg.norm(g, axis=1).max()
        peaks, strengths = _peaks(power, step_per_nm, g, reach)
        matrix = _affine(q_per_nm[used], peaks, strengths * weights[used], matrix)
    return Periodicity(matrix, found)


def _affine(q_per_nm: np.ndarray, g_per_nm: np.ndarray, weights: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The matrix that takes q to g = A^-T q in least squares; the one before where that is no small change."""
    root = np.sqrt(np.maximum(weights, 1e-12))[:, None]
    transposed, *_ = np.linalg.lstsq(q_per_nm * root, g_per_nm * root, rcond=None)
    change = before.T @ transposed.T if abs(np.linalg.det(transposed)) > 0 else np.zeros((2, 2))
    return np.linalg.inv(transposed) if np.abs(change - np.eye(2)).max() < 0.2 else before


def _spectrum(picture: Picture) -> tuple[np.ndarray, tuple[float, float]]:
    """Power (rows, columns) over that of the noise, zero frequency at [0, 0], and the frequency step (y, x)."""
    counts = picture.counts
    window = np.outer(hann(counts.shape[0]), hann(counts.shape[1]))
    windowed = (counts - counts.mean()) * window
    shape = tuple(max(_SHORTEST_TRANSFORM_PX, count) for count in counts.shape)
    power = np.abs(np.fft.fft2(windowed, shape)) ** 2 / max(float((window**2 * counts).sum()), 1e-12)
    step = tuple(1 / (count * picture.pixel_size_nm) for count in shape)
    return power, (step[0], step[1])


def _look_up(power: np.ndarray, step_per_nm: tuple[float, float], g_x: np.ndarray, g_y: np.ndarray) -> np.ndarray:
    row, column = np.round(g_y / step_per_nm[0]).astype(int), np.round(g_x / step_per_nm[1]).astype(int)
    seen = (np.abs(row) < power.shape[0] // 2) & (np.abs(column) < power.shape[1] // 2)
    return np.where(seen, power[row % power.shape[0], column % power.shape[1]], 0.0)


def _peaks(
    power: np.ndarray, step_per_nm: tuple[float, float], g_per_nm: np.ndarray, reach_per_nm: float
) -> tuple[np.ndarray, np.ndarray]:
    """The top of the peak within reach of each frequency: parabola through the logarithm of three points."""
    rows, columns = power.shape
    places, strengths = g_per_nm.copy(), np.zeros(len(g_per_nm))
    down_px, right_px = (max(2, int(np.ceil(reach_per_nm / step))) for step in step_per_nm)
    for number, (g_x, g_y) in enumerate(g_per_nm):
        row, column = round(float(g_y / step_per_nm[0])), round(float(g_x / step_per_nm[1]))
        if abs(row) > rows // 2 - down_px - 2 or abs(column) > columns // 2 - right_px - 2:
            continue
        rows_near = np.arange(row - down_px - 1, row + down_px + 2)
        columns_near = np.arange(column - right_px - 1, column + right_px + 2)
        near = power[np.ix_(rows_near % rows, columns_near % columns)]
        inner = near[1:-1, 1:-1]
        r, c = (int(index) + 1 for index in np.unravel_index(np.argmax(inner), inner.shape))
        strengths[number] = near[r, c]
        down, right = _vertex(near[r - 1 : r + 2, c]), _vertex(near[r, c - 1 : c + 2])
        places[number] = (columns_near[c] + right) * step_per_nm[1], (rows_near[r] + down) * step_per_nm[0]
    return places, strengths


def _vertex(three: np.ndarray) -> float:
    low, middle, high = np.log(np.maximum(three, 1e-12))
    curvature = low - 2 * middle + high
    return 0.0 if curvature >= 0 else float(np.clip(0.5 * (low - high) / curvature, -0.5, 0.5))


def refine_periodicity(
    pictures: list[Picture], found: Periodicity, q_per_nm: np.ndarray, rounds: int = 3
) -> Periodicity:
    """Least squares of the lattice phases of overlapping blocks: what is left of rotation, scale, shear, linear drift.

    A displacement u(r) = E r changes the phase of the term g by -2 pi g.(E r). Blocks without lattice (contamination)
    weigh nothing, because a phase counts with the square of its amplitude over its noise.
    """
    matrix = found.matrix
    rms_nm = 0.0
    for _ in range(rounds):
        g = q_per_nm @ np.linalg.inv(matrix)
        equations = [_phase_equations(picture, g) for picture in pictures]
        strain, rms_nm = _strain(equations, g)
        matrix = (np.eye(2) + strain) @ matrix
    return Periodicity(matrix, found.power, rms_nm)


def _blocks(axis_nm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Hann windows (axis, blocks) and the block centres (blocks,)."""
    extent = len(axis_nm) * abs(float(axis_nm[1] - axis_nm[0]))
    count = 2 * int(np.clip(round(extent / _BLOCK_NM), 1, _MOST_BLOCKS)) + 1
    edges = np.linspace(0, len(axis_nm), count + 2).round().astype(int)
    windows = np.zeros((len(axis_nm), count), dtype=np.float32)
    for block in range(count):
        first, last = edges[block], edges[block + 2]
        windows[first:last, block] = hann(last - first)
    return windows, (axis_nm @ windows) / windows.sum(axis=0)


def _phase_equations(picture: Picture, g_per_nm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phases (G, blocks) against the mean of their term, their weights 1/variance, and block centres (blocks, 2)."""
    x, y = picture.x_nm, picture.y_nm
    window_x, centre_x = _blocks(x)
    window_y, centre_y = _blocks(y)
    counts = picture.counts - picture.counts.mean()
    phases, weights = [], []
    noise = window_y.T.astype(float) ** 2 @ picture.counts @ window_x**2
    for g_x, g_y in g_per_nm:
        along_x = window_x * np.exp(-2j * np.pi * g_x * x)[:, None].astype(np.complex64)
        along_y = window_y * np.exp(-2j * np.pi * g_y * y)[:, None].astype(np.complex64)
        sums = along_y.T @ (counts @ along_x.real + 1j * (counts @ along_x.imag))
        phases.append(np.angle(sums * np.conj(sums.sum())).ravel())
        snr = 2 * np.abs(sums) ** 2 / np.maximum(noise, 1e-9)
        weights.append(np.where(snr > 8, snr, 0.0).ravel())
    centres = np.stack([a.ravel() for a in np.meshgrid(centre_x, centre_y)], axis=1)
    return np.array(phases), np.array(weights), centres


def _strain(
    equations: list[tuple[np.ndarray, np.ndarray, np.ndarray]], g_per_nm: np.ndarray
) -> tuple[np.ndarray, float]:
    """The displacement gradient E (2, 2) and the weighted rms displacement beyond it and beyond the noise, nm."""
    rows, values, root = [], [], []
    term_count = len(g_per_nm)
    total = term_count * len(equations)
    for picture, (phases, weights, centres) in enumerate(equations):
        for term in range(term_count):
            offsets = np.zeros((len(centres), total))
            offsets[:, picture * term_count + term] = 1.0
            g_x, g_y = -2 * np.pi * g_per_nm[term]
            gradient = np.stack(
                [g_x * centres[:, 0], g_x * centres[:, 1], g_y * centres[:, 0], g_y * centres[:, 1]], axis=1
            )
            rows.append(np.concatenate([gradient, offsets], axis=1))
            values.append(phases[term])
            root.append(np.sqrt(weights[term]))
    design, value, weight = np.concatenate(rows), np.concatenate(values), np.concatenate(root)
    used = weight > 0
    if used.sum() < total + 8:
        return np.zeros((2, 2)), 0.0
    solution, *_ = np.linalg.lstsq(design * weight[:, None], value * weight, rcond=None)
    residual = value - design @ solution
    radius = 2 * np.pi * float(np.sqrt((g_per_nm**2).sum(axis=1).mean() / 2))
    excess = float(((residual**2)[used] * weight[used] ** 2 - 1).sum() / (weight[used] ** 2).sum())
    return solution[:4].reshape(2, 2), float(np.sqrt(max(excess, 0.0))) / radius


def subframe_shifts_nm(
    subframes: list[list[np.ndarray]], pixel_size_nm: float, g_per_nm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far the lattice of each sub-frame lies from the mean, (sub-frames, 2) nm (x, y), and its standard errors.

    `subframes[s][d]` are the counts of detector d. The phases of first-order terms say it up to half a period, so the
    step from one sub-frame to the next must stay below that (0.1 nm and more).
    """
    sums, noise = [], []
    for pictures in subframes:
        of_frame, of_noise = [], []
        for counts in pictures:
            picture = Picture(counts.astype(np.float32), pixel_size_nm)
            window_y, window_x = hann(counts.shape[0]), hann(counts.shape[1])
            windowed = picture.counts * window_y[:, None] * window_x
            of_frame.append(bragg_sums(windowed, picture.x_nm, picture.y_nm, g_per_nm))
            of_noise.append(np.full(len(g_per_nm), float(window_y**2 @ picture.counts @ window_x**2)))
        sums.append(np.concatenate(of_frame))
        noise.append(np.concatenate(of_noise))
    amplitude, variance = np.array(sums), np.array(noise)
    design = np.tile(-2 * np.pi * g_per_nm, (amplitude.shape[1] // len(g_per_nm), 1))
    steps, errors = np.zeros((len(amplitude), 2)), np.zeros((len(amplitude), 2))
    for number in range(1, len(amplitude)):
        product = amplitude[number] * np.conj(amplitude[number - 1])
        spread = variance[number] / (2 * np.abs(amplitude[number]) ** 2 + 1e-9)
        spread = spread + variance[number - 1] / (2 * np.abs(amplitude[number - 1]) ** 2 + 1e-9)
        weight = 1 / np.maximum(spread, 1e-12)
        weight = np.where(spread < 0.1, weight, 0.0)
        normal = design.T @ (design * weight[:, None]) + 1e-6 * np.eye(2)
        steps[number] = np.linalg.solve(normal, design.T @ (weight * np.angle(product)))
        errors[number] = np.sqrt(np.diag(np.linalg.inv(normal)))
    shifts = np.cumsum(steps, axis=0)
    return shifts - shifts.mean(axis=0), errors
