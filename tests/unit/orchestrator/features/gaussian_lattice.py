"""An analytic forward model: Gaussian columns of WSe2 whose heights depend on the detector; real, if simple, optics.

Column widths grow with defocus and source size, so a wrong defocus is a wrong template here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from instruments import (
    AcquireFrame,
    Coherence,
    Detector,
    Frame,
    MicroscopeState,
    Mode,
    Optics,
    ScanPattern,
    StagePosition,
)

A_NM = 0.3282
# Fraction of the beam at a column's centre by its content, beyond the background, for (inner, outer) mrad.
HEIGHTS = {
    (40.0, 100.0): (
        {("W",): 0.042, ("Se", "Se"): 0.053, ("Se",): 0.027, ("Se", "O"): 0.031, (): 0.0, ("Mo",): 0.024},
        0.006,
    ),
    (0.0, 10.0): (
        {("W",): -0.016, ("Se", "Se"): -0.017, ("Se",): -0.008, ("Se", "O"): -0.009, (): 0.0, ("Mo",): -0.011},
        0.09,
    ),
    (80.0, 200.0): (
        {("W",): 0.026, ("Se", "Se"): 0.018, ("Se",): 0.009, ("Se", "O"): 0.0093, (): 0.0, ("Mo",): 0.011},
        0.0025,
    ),
    (16.0, 31.0): (
        {("W",): -0.06, ("Se", "Se"): -0.05, ("Se",): -0.026, ("Se", "O"): -0.03, (): 0.0, ("Mo",): -0.042},
        0.45,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    name: str
    x_nm: float
    y_nm: float
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Defect:
    column: str
    becomes: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    values: np.ndarray
    step_nm: float


def _columns() -> tuple[Column, ...]:
    height = A_NM * np.sqrt(3)
    metal, pair = (0.02, 0.05), (0.02 + A_NM / 2, 0.05 + height / 6)
    centre = (A_NM / 2, height / 2)
    return (
        Column("W", *metal, ("W",)),
        Column("Se2", *pair, ("Se", "Se")),
        Column("W", (metal[0] + centre[0]) % A_NM, (metal[1] + centre[1]) % height, ("W",)),
        Column("Se2", (pair[0] + centre[0]) % A_NM, (pair[1] + centre[1]) % height, ("Se", "Se")),
    )


@dataclass
class GaussianLattice:
    """LatticeModel of Gaussian columns."""

    cell_width_nm: float = A_NM
    cell_height_nm: float = A_NM * np.sqrt(3)
    columns: tuple[Column, ...] = field(default_factory=_columns)
    defects: dict[str, Defect] = field(
        default_factory=lambda: {
            "V_Se": Defect("Se2", ("Se",)),
            "O_Se": Defect("Se2", ("Se", "O")),
            "V_Se2": Defect("Se2", ()),
            "Mo_W": Defect("W", ("Mo",)),
        }
    )

    def sigma_nm(self, optics: Optics, coherence: Coherence) -> float:
        return float(np.sqrt(0.055**2 + (coherence.source_size_nm / 2.3548) ** 2 + (0.0045 * optics.defocus_nm) ** 2))

    def height(self, content: tuple[str, ...], inner_mrad: float, outer_mrad: float, optics, coherence) -> float:
        return HEIGHTS[inner_mrad, outer_mrad][0][content] * (0.055 / self.sigma_nm(optics, coherence)) ** 2

    def cell_image(self, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence) -> np.ndarray:
        rows, columns = 48, 28
        sigma = self.sigma_nm(optics, coherence)
        q_x = np.fft.fftfreq(columns, 1 / columns) / self.cell_width_nm
        q_y = np.fft.fftfreq(rows, 1 / rows)[:, None] / self.cell_height_nm
        spectrum = np.zeros((rows, columns), dtype=complex)
        area = self.cell_width_nm * self.cell_height_nm
        for column in self.columns:
            height = self.height(column.symbols, inner_mrad, outer_mrad, optics, coherence)
            gaussian = height * 2 * np.pi * sigma**2 / area * np.exp(-2 * (np.pi * sigma) ** 2 * (q_x**2 + q_y**2))
            spectrum += gaussian * np.exp(-2j * np.pi * (q_x * column.x_nm + q_y * column.y_nm))
        return np.fft.ifft2(spectrum).real * rows * columns + HEIGHTS[inner_mrad, outer_mrad][1]

    def difference_image(self, species: str, inner_mrad: float, outer_mrad: float, optics, coherence) -> Difference:
        step_nm, reach = 0.01, 60
        axis = np.arange(-reach, reach + 1) * step_nm
        defect = self.defects[species]
        perfect = next(column.symbols for column in self.columns if column.name == defect.column)
        change = self.height(defect.becomes, inner_mrad, outer_mrad, optics, coherence)
        change -= self.height(perfect, inner_mrad, outer_mrad, optics, coherence)
        sigma = self.sigma_nm(optics, coherence)
        return Difference(change * np.exp(-(axis**2 + axis[:, None] ** 2) / (2 * sigma**2)), step_nm)


MODES = {
    "maadf": Mode(
        name="maadf",
        detectors=(
            Detector(name="maadf", inner_mrad=40, outer_mrad=100),
            Detector(name="bf", inner_mrad=0, outer_mrad=10),
        ),
    ),
    "haadf": Mode(
        name="haadf",
        detectors=(
            Detector(name="haadf", inner_mrad=80, outer_mrad=200),
            Detector(name="abf", inner_mrad=16, outer_mrad=31),
        ),
    ),
}


@dataclass
class Specimen:
    """A sheet under a scan: what is drawn, at which angle and place, and with which defects."""

    model: object
    rotation_deg: float = 0.0
    shear: float = 0.0
    origin_nm: tuple[float, float] = (0.0, 0.0)
    density_per_nm2: dict[str, float] = field(default_factory=dict)
    contamination: object = None  # callable (x, y) -> added counts fraction, or None
    drift_per_subframe_nm: tuple[float, float] = (0.0, 0.0)


@dataclass
class Exposure:
    """A frame and the truth behind it: defects (x, y) in the scan's own axes about the frame centre, with species."""

    frame: Frame
    defect_xy_nm: np.ndarray
    defect_species: list[str]
    matrix: np.ndarray
    clean: np.ndarray


def expose(
    specimen: Specimen,
    rng: np.random.Generator,
    *,
    mode: str = "maadf",
    shape_px: tuple[int, int] = (512, 512),
    pixel_size_nm: float = 0.039,
    dose_e_per_a2: float = 1230.0,
    subframe_count: int = 4,
    true_optics: Optics | None = None,
    believed_defocus_nm: float = 0.0,
    coherence: Coherence | None = None,
    centre_nm: tuple[float, float] = (0.0, 0.0),
) -> Exposure:
    """A Poisson frame of the specimen."""
    coherence = coherence or Coherence(source_size_nm=0.0566, focal_spread_nm=3.3)
    optics = Optics(
        beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30, defocus_nm=believed_defocus_nm
    )
    true_optics = true_optics or optics
    model = specimen.model
    rows, columns = shape_px
    x = (np.arange(columns) - (columns - 1) / 2) * pixel_size_nm
    y = ((np.arange(rows) - (rows - 1) / 2) * pixel_size_nm)[:, None]
    turn = np.radians(specimen.rotation_deg)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array(
        [[1.0, specimen.shear], [0.0, 1.0 + specimen.shear / 2]]
    )
    inverse = np.linalg.inv(matrix)
    places, names = _defects(specimen, matrix, x, y, rng)
    electrons_per_px = dose_e_per_a2 * 100 * pixel_size_nm**2 / subframe_count
    counts: dict[str, list[np.ndarray]] = {}
    haze = specimen.contamination(x, y) if specimen.contamination is not None else np.zeros((rows, columns))
    for detector in MODES[mode].detectors:
        cell = model.cell_image(detector.inner_mrad, detector.outer_mrad, true_optics, coherence)
        counts[detector.name] = []
        for subframe in range(subframe_count):
            shift = np.array(specimen.origin_nm) + subframe * np.array(specimen.drift_per_subframe_nm)
            image = _periodic(cell, model, inverse, x - shift[0], y - shift[1])
            for place, name in zip(places + subframe * np.array(specimen.drift_per_subframe_nm), names, strict=True):
                _add(image, model, name, detector, place, inverse, x, y, true_optics, coherence)
            image = image * (1 - 0.3 * np.minimum(haze, 1)) + haze * cell.mean()
            counts[detector.name].append(rng.poisson(np.maximum(image, 0) * electrons_per_px).astype(np.uint16))
    frame = Frame(
        action_id="frame",
        requested=AcquireFrame(
            action_id="frame", deadline_s=60, optics=optics, mode=mode, subframe_count=subframe_count,
            stage=StagePosition(x_nm=centre_nm[0], y_nm=centre_nm[1]),
            scan=ScanPattern(field_of_view_nm=columns * pixel_size_nm, shape_px=shape_px, dwell_time_us=1.0),
        ),
        state=MicroscopeState(
            time_s=1.0, stage=StagePosition(x_nm=centre_nm[0], y_nm=centre_nm[1]), optics=optics, coherence=coherence,
            mode=mode,
        ),
        mode=MODES[mode],
        counts={name: np.stack(images) for name, images in counts.items()},
        pixel_size_nm=pixel_size_nm, dose_e_per_a2=dose_e_per_a2,
        electrons=dose_e_per_a2 * 100 * pixel_size_nm**2 * rows * columns,
        started_s=0.0, ended_s=1.0, instrument="analytic", simulated=True,
    )  # fmt: skip
    return Exposure(frame, places, names, matrix, haze < 0.1)


def _defects(specimen: Specimen, matrix: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator):
    model = specimen.model
    half = max(x[-1], y[-1, 0]) * 1.5
    count = int(half / model.cell_width_nm) + 2
    i, j = np.meshgrid(np.arange(-count, count + 1), np.arange(-count, count + 1))
    cells = np.stack([i.ravel() * model.cell_width_nm, j.ravel() * model.cell_height_nm], axis=1)
    places, names = [np.zeros((0, 2))], []
    for column in model.columns:
        here = (cells + np.array([column.x_nm, column.y_nm])) @ matrix.T + specimen.origin_nm
        inside = (np.abs(here[:, 0]) < x[-1] + 0.3) & (np.abs(here[:, 1]) < y[-1, 0] + 0.3)
        free = here[inside][rng.permutation(int(inside.sum()))]
        for species, density in specimen.density_per_nm2.items():
            if model.defects[species].column == column.name:
                area = 4 * x[-1] * y[-1, 0]
                wanted = min(rng.poisson(density * area * 0.5), len(free))
                places.append(free[:wanted])
                names += [species] * wanted
                free = free[wanted:]
    return np.concatenate(places), names


def _periodic(cell: np.ndarray, model, inverse: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cell at scan positions (x, y) from its Fourier series, exactly: each term is a row times a column."""
    rows, columns = cell.shape
    spectrum = np.fft.fft2(cell) / cell.size
    h = np.fft.fftfreq(columns, 1 / columns) / model.cell_width_nm
    k = np.fft.fftfreq(rows, 1 / rows) / model.cell_height_nm
    q = np.stack([part.ravel() for part in np.meshgrid(h, k)], axis=1) @ inverse
    strong = np.abs(spectrum.ravel()) > 1e-6 * abs(spectrum[0, 0])
    along_x = np.exp(2j * np.pi * np.outer(q[strong, 0], x))
    along_y = np.exp(2j * np.pi * np.outer(y[:, 0], q[strong, 1])) * spectrum.ravel()[strong]
    return (along_y @ along_x).real


def _add(image, model, name, detector, place, inverse, x, y, optics, coherence) -> None:
    from scipy.ndimage import map_coordinates

    difference = model.difference_image(name, detector.inner_mrad, detector.outer_mrad, optics, coherence)
    reach = difference.values.shape[0] // 2 * difference.step_nm
    rows = np.flatnonzero(np.abs(y[:, 0] - place[1]) < reach)
    columns = np.flatnonzero(np.abs(x - place[0]) < reach)
    if len(rows) == 0 or len(columns) == 0:
        return
    dx, dy = x[columns] - place[0], y[rows] - place[1]
    u = inverse[0, 0] * dx + inverse[0, 1] * dy
    v = inverse[1, 0] * dx + inverse[1, 1] * dy
    centre = difference.values.shape[0] // 2
    coordinates = np.stack([v / difference.step_nm + centre, u / difference.step_nm + centre])
    image[np.ix_(rows, columns)] += map_coordinates(difference.values, coordinates, order=3, mode="constant")
