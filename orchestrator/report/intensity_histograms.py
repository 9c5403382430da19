"""Column intensities per detector: perfect columns, confirmed defects, and the d' that was predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from orchestrator.features.feature_set import FeatureSet
from orchestrator.report.census_view import CensusView, species_style
from orchestrator.report.pictures import INK, MUTED, WIDTH_INCHES, Picture, as_svg, canvas
from orchestrator.report.report_data import ReportData, ReportFrame

_SAME_SITE_NM = 0.08
_FEWEST = 3
_CLEAN = 0.9
_BINS = np.arange(-16.0, 12.01, 0.4)


@dataclass(frozen=True, slots=True)
class Pool:
    """Standardised column intensities of all fields of one mode: columns' hosts (n, D), each species (k, D).

    Unit: standard errors of one column in its own frame, host at zero, so frames of different dose can stand together.
    `predicted` (S, D) is the mean signed d' of the forward model.
    """

    mode: str
    detectors: tuple[str, ...]
    host: dict[str, np.ndarray]
    species: list[np.ndarray]
    predicted: np.ndarray
    frame_count: int
    dose_e_per_a2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectabilityRow:
    """One species seen by one detector."""

    mode: str
    detector: str
    species: str
    predicted: str
    measured: str
    site_count: int


def column_of_species(data: ReportData, view: CensusView) -> list[str]:
    """Column name of each species, from the spec."""
    defects: Mapping[str, Any] = data.spec.get("specimen", {}).get("defects", {})
    return [str(defects.get(name, {}).get("column", "column")) for name in view.species]


def pools(data: ReportData, view: CensusView) -> list[Pool]:
    """One pool for every mode in which fields were taken."""
    fields: dict[str, list[ReportFrame]] = {}
    for frame in data.frames:
        if frame.purpose == "field":
            fields.setdefault(frame.mode, []).append(frame)
    columns = column_of_species(data, view)
    found = [_pool(data, view, mode, frames, columns) for mode, frames in fields.items()]
    return [pool for pool in found if pool is not None]


def _pool(data: ReportData, view: CensusView, mode: str, frames: list[ReportFrame], columns: list[str]) -> Pool | None:
    taken: list[tuple[ReportFrame, FeatureSet]] = []
    for frame in frames:
        features = data.load_features(frame.action_id)
        if (
            features is not None
            and len(features.arrays.get("amplitude", ()))
            and "expected_amplitude" in features.arrays
        ):
            taken.append((frame, features))
    if not taken:
        return None
    shown = data.load_frame(taken[0][0].id)
    detectors = tuple(d.name for d in shown.mode.detectors if d.name in shown.counts and d.outer_mrad is not None)
    numbers = _column_numbers(taken[0][1], columns)
    host: dict[str, list[np.ndarray]] = {name: [] for name in dict.fromkeys(columns)}
    species: list[list[np.ndarray]] = [[] for _ in view.species]
    predicted: list[np.ndarray] = []
    for frame, features in taken:
        arrays = features.arrays
        z = arrays["amplitude"] / arrays["amplitude_std"]
        clean = (arrays["site_clean_probability"] > _CLEAN) & np.isfinite(z).all(axis=1)
        called = _called(view, frame, features)
        error = np.full((len(view.species), z.shape[1]), np.nan)
        for number, name in enumerate(columns):
            of_column = clean & (arrays["site_column"] == numbers[name])
            if of_column.any():
                error[number] = np.median(arrays["amplitude_std"][of_column], axis=0)
            species[number].append(z[clean & (called == number)])
        for name in host:
            host[name].append(z[clean & (arrays["site_column"] == numbers[name]) & (called == -1)])
        predicted.append(arrays["expected_amplitude"] / error)
    return Pool(
        mode,
        detectors,
        {name: np.concatenate(parts) for name, parts in host.items()},
        [np.concatenate(parts) for parts in species],
        _median_of_known(np.array(predicted)),
        len(taken),
        float(np.median([frame.dose_e_per_a2 for frame, _ in taken])),
    )


def _median_of_known(values: np.ndarray) -> np.ndarray:
    """Median over the first axis of what is not NaN; NaN where nothing is known at all."""
    known = ~np.isnan(values).all(axis=0)
    median = np.full(values.shape[1:], np.nan)
    median[known] = np.nanmedian(values[:, known], axis=0)
    return median


def _column_numbers(features: FeatureSet, columns: list[str]) -> dict[str, int]:
    """Index of each column: the one whose sites carry a ratio for its species."""
    llr, column = features.arrays["llr"], features.arrays["site_column"]
    numbers: dict[str, int] = {}
    for number, name in enumerate(columns):
        known = column[np.isfinite(llr[:, number])]
        numbers[name] = int(known[0]) if len(known) else -1
    return numbers


def _called(view: CensusView, frame: ReportFrame, features: FeatureSet) -> np.ndarray:
    """For each site of a frame: -1 no suspect, -2 suspect but no confirmed native, else the species confirmed there."""
    arrays = features.arrays
    called = np.full(len(arrays["site_x_nm"]), -1)
    if not len(view.x_nm):
        return called
    drift_x, drift_y = view.drift_of(frame)
    positions = np.stack([arrays["site_x_nm"] - drift_x, arrays["site_y_nm"] - drift_y], axis=1)
    distance, which = scipy.spatial.cKDTree(np.stack([view.x_nm, view.y_nm], axis=1)).query(positions)
    near = distance < _SAME_SITE_NM
    doubtful = view.native | view.beam_made | view.undetermined
    called[near] = np.where(
        view.native[which[near]], view.call[which[near]] - 2, np.where(doubtful[which[near]], -2, -1)
    )
    return called


def histograms(data: ReportData, view: CensusView, pool: Pool) -> Picture:
    """For every column and detector of a mode: intensities of the host and of what was confirmed there."""
    columns = column_of_species(data, view)
    names = list(pool.host)
    with canvas(WIDTH_INCHES, 2.5 * len(names) + 0.5) as figure:
        grid = figure.subplots(len(names), len(pool.detectors), squeeze=False)
        for line, column in zip(grid, names, strict=True):
            for place, axes in enumerate(line):
                _histogram(axes, pool, column, place, [n for n, name in enumerate(columns) if name == column], view)
        for axes in grid[-1]:
            axes.set_xlabel("column intensity minus host, in standard errors")
        handles: dict[str, Any] = {}
        for axes in grid.ravel():
            handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=7)
        markup = as_svg(figure, f"histograms-{pool.mode}", f"Histograms of column intensities in mode {pool.mode}.")
    caption = (
        f"Mode {pool.mode}, {_fields(pool.frame_count)} of {pool.dose_e_per_a2:,.0f} e/Å² "
        "(median), clean sites only, one entry "
        "a column and frame. Grey: columns that nobody suspects; the thin curve is the unit "
        "normal distribution they should "
        "follow. Colours: confirmed natives (scaled to be visible; number in the table). "
        "Dashed: where the forward model "
        "puts each species. Intensities are fitted with neighbours held, so a constant background drops out."
    )
    return Picture(markup=markup, caption=caption)


def _fields(count: int) -> str:
    return "one field" if count == 1 else f"{count} fields"


def _histogram(axes: Any, pool: Pool, column: str, detector: int, members: list[int], view: CensusView) -> None:
    host = pool.host[column][:, detector]
    fraction, _ = np.histogram(np.clip(host, _BINS[0], _BINS[-1]), _BINS)
    density = fraction / max(1, len(host)) / np.diff(_BINS)
    axes.stairs(density, _BINS, fill=True, color="#cfcfcf", label="host")
    at = np.linspace(-5, 5, 101)
    axes.plot(at, np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi), color=MUTED, linewidth=0.9, label="unit normal")
    for number in members:
        colour, _ = species_style(number)
        values = np.clip(pool.species[number][:, detector], _BINS[0], _BINS[-1])
        if len(values):
            count, _ = np.histogram(values, _BINS)
            axes.stairs(0.35 * count / count.max(), _BINS, color=colour, linewidth=1.6, label=view.species[number])
        if np.isfinite(pool.predicted[number, detector]):
            axes.axvline(
                float(np.clip(pool.predicted[number, detector], _BINS[0], _BINS[-1])),
                color=colour,
                linewidth=1.1,
                linestyle="--",
                label=f"{view.species[number]} predicted",
            )
    axes.set_title(f"{column} columns, {pool.detectors[detector].upper()}", color=INK)
    axes.set_yticks([])
    axes.set_xlim(_BINS[0], _BINS[-1])
    axes.spines["left"].set_visible(False)


def detectability_rows(view: CensusView, columns: list[str], pool: Pool) -> list[DetectabilityRow]:
    """Predicted and measured d' of every species against its host, detector by detector."""
    rows: list[DetectabilityRow] = []
    for number, name in enumerate(view.species):
        values, host = pool.species[number], pool.host[columns[number]]
        for place, detector in enumerate(pool.detectors):
            expected = pool.predicted[number, place]
            measured = "–"
            if len(values) >= _FEWEST and len(host) > _FEWEST:
                value = (values[:, place].mean() - host[:, place].mean()) / host[:, place].std()
                measured = (
                    f"{value:+.1f} ± {values[:, place].std(ddof=1) / np.sqrt(len(values)) / host[:, place].std():.1f}"
                )
            rows.append(
                DetectabilityRow(
                    mode=pool.mode,
                    detector=detector,
                    species=name,
                    measured=measured,
                    site_count=len(values),
                    predicted=f"{expected:+.1f}" if np.isfinite(expected) else "–",
                )
            )
    return rows
