"""Posterior mean and uncertainty maps: density of the census's defects, rates of an element map."""

from __future__ import annotations

import numpy as np

from orchestrator.objectives.density import KERNEL_NM
from orchestrator.report.census_view import FIRST_SPECIES, CensusView
from orchestrator.report.overview import extent_of
from orchestrator.report.pictures import WIDTH_INCHES, Picture, as_png, bare, canvas, scale_bar
from orchestrator.report.report_data import ReportData

_GRID_NM = 4.0
_PRIOR_AREA_NM2 = 400.0


def density_posterior(data: ReportData, view: CensusView) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (columns,), y (rows,), mean and standard deviation (rows, columns) of the density of natives, per nm2.

    Gamma posterior at every point: expected natives and analysed clean area, both weighted with a Gaussian kernel of
    30 nm, and the overall mean with the weight of 400 nm2, as in `orchestrator.objectives.density`.
    """
    clean, x_nm, y_nm = np.nan_to_num(data.maps["clean"]), data.maps["x_nm"], data.maps["y_nm"]
    area = np.where(data.maps["visited_dose_e_per_a2"] > 0, clean, 0.0) * _cell_nm2(x_nm, y_nm)
    counted = [FIRST_SPECIES + n for n, counts in enumerate(view.counts_as_native) if counts]
    weight = view.posterior[:, counted].sum(axis=1)
    x = np.arange(x_nm[0], x_nm[-1] + _GRID_NM, _GRID_NM)
    y = np.arange(y_nm[0], y_nm[-1] + _GRID_NM, _GRID_NM)
    areas = _kernel(y, y_nm) @ area @ _kernel(x, x_nm).T
    counts = (_kernel(y, view.y_nm) * weight) @ _kernel(x, view.x_nm).T
    mean_per_nm2 = weight.sum() / max(float(area.sum()), 1.0)
    shape = counts + mean_per_nm2 * _PRIOR_AREA_NM2
    return x, y, shape / (areas + _PRIOR_AREA_NM2), np.sqrt(shape) / (areas + _PRIOR_AREA_NM2)


def _kernel(at_nm: np.ndarray, from_nm: np.ndarray) -> np.ndarray:
    return np.exp(-((at_nm[:, None] - from_nm) ** 2) / (2 * KERNEL_NM**2))


def _cell_nm2(x_nm: np.ndarray, y_nm: np.ndarray) -> float:
    return float(np.diff(x_nm[:2]).item() * np.diff(y_nm[:2]).item())


def density_maps(data: ReportData, view: CensusView) -> Picture | None:
    """Density of natives with its uncertainty; None before anything was analysed."""
    extent = extent_of(data.maps, data.frames)
    if extent is None or "clean" not in data.maps or not (data.maps["visited_dose_e_per_a2"] > 0).any():
        return None
    x, y, mean, std = density_posterior(data, view)
    half = _GRID_NM / 2
    drawn = (x[0] - half, x[-1] + half, y[0] - half, y[-1] + half)
    with canvas(WIDTH_INCHES, 4.75) as figure:
        for place, (values, name) in enumerate(((mean, "posterior mean"), (std, "posterior standard deviation"))):
            axes = figure.add_subplot(1, 2, place + 1)
            shown = axes.imshow(values, extent=drawn, cmap="cividis", vmin=0, vmax=float(mean.max()) or None)
            axes.contour(
                data.maps["x_nm"],
                data.maps["y_nm"],
                data.maps["visited_dose_e_per_a2"] > 0,
                [0.5],
                colors="white",
                linewidths=0.6,
            )
            figure.colorbar(shown, ax=axes, shrink=0.8, label="natives per nm² of clean specimen")
            axes.set_title(name)
            axes.set_xlim(extent[0], extent[1])
            axes.set_ylim(extent[2], extent[3])
            bare(axes)
            scale_bar(axes, extent[1] - extent[0])
        markup = as_png(figure, "Posterior mean and standard deviation of the density of native defects.")
    names = ", ".join(name for name, counts in zip(view.species, view.counts_as_native, strict=True) if counts)
    caption = (
        f"Density of natives ({names}) with its uncertainty on one colour scale; white outlines "
        "are the analysed areas. "
        f"Gamma posterior, counts smoothed by a Gaussian of {KERNEL_NM:g} nm: structure finer "
        "than that cannot show here."
    )
    return Picture(markup=markup, caption=caption)


def element_maps(data: ReportData) -> list[Picture]:
    """For each line the posterior mean, its standard deviation and where it was measured."""
    maps = data.maps
    lines = [
        name.removeprefix("rate_") for name in maps if name.startswith("rate_") and not name.startswith("rate_std_")
    ]
    extent = extent_of(data.maps, data.frames)
    if extent is None:
        return []
    pictures: list[Picture] = []
    exposed = maps.get("exposure_fraction")
    for line in lines:
        with canvas(WIDTH_INCHES, 4.75) as figure:
            for place, (values, name) in enumerate(
                ((maps[f"rate_{line}"], "posterior mean"), (maps[f"rate_std_{line}"], "posterior standard deviation"))
            ):
                axes = figure.add_subplot(1, 2, place + 1)
                shown = axes.imshow(values, extent=extent, cmap="cividis", vmin=0)
                if exposed is not None and place == 1:
                    row, column = np.nonzero(exposed > 0)
                    axes.plot(maps["x_nm"][column], maps["y_nm"][row], ".", markersize=2.2, color="white")
                figure.colorbar(shown, ax=axes, shrink=0.8, label=f"{line}, counts per cell and full exposure")
                axes.set_title(f"{line}: {name}")
                bare(axes)
                scale_bar(axes, extent[1] - extent[0])
            markup = as_png(figure, f"Posterior mean and standard deviation of the {line} map.")
        measured = int((exposed > 0).sum()) if exposed is not None else 0
        entry = data.summary.get("lines", {}).get(line, {})
        error = entry.get("predicted_error")
        caption = f"{line} from {measured} of {maps[f'rate_{line}'].size} cells (white dots on the right)."
        caption += f" Predicted relative error of the whole map: {error:.2f}." if error is not None else ""
        pictures.append(Picture(markup=markup, caption=caption))
    return pictures
