"""The question "where is how much of each element": maps of X-ray lines to a given error, from few spectra.

Unit of a rate: counts of one cell of the map in one full exposure of it (each of its bin_px x bin_px recorded points
for `full_dwell_time_us`). Neighbours: `field_posterior` makes the maps, `held_out` judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from instruments.models import Record
from orchestrator.errors import SpecError
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.field_posterior import (
    FieldPosterior,
    KernelWeight,
    MapCounts,
    RateMap,
    choose_kernels,
    fit_field,
)
from orchestrator.objectives.held_out import held_out_deviance, held_out_error, null_deviance
from orchestrator.objectives.map_grid import MapGrid
from orchestrator.objectives.objective import FrameFacts, Score
from orchestrator.objectives.survey_kernel import MapPositions, map_positions

_FEWEST_POSITIONS = 8
_ERROR_STRIDE = 7  # the running error is taken from every 7th position; 7 shares no factor with sides of 2^n


class ElementMapOptions(Record):
    """Options of the objective `element_map` in a spec."""

    lines: tuple[str, ...] = Field(min_length=1, description="X-ray lines to map, such as Fe_Ka")
    full_dwell_time_us: float = Field(gt=0, le=1e9, description="of one point; sets the unit of the maps")
    bin_px: int = Field(default=4, ge=1, le=4096, description="survey pixels a side of one cell of the map")
    target_error: float = Field(
        default=0.5, gt=0, le=10, description="predicted relative error of every map to stop at"
    )
    use_survey: bool = Field(default=True, description="false: maps are interpolated by position alone")

    @field_validator("lines")
    @classmethod
    def _distinct(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(lines)) != len(lines):
            raise ValueError(f"{', '.join(lines)}: name each line once")
        return lines


@dataclass
class _Line:
    """What is kept of one line between updates."""

    counts: list[float] = field(default_factory=list[float])
    posterior: FieldPosterior | None = None
    error: float | None = None


class ElementMap:
    """Objective: rate maps of `lines` until the predicted relative error of every one is at most `target_error`.

    The relative error of a line is the root mean square of the posterior standard deviation over the mean rate of the
    map. It is refreshed after every spectrum at first, then each time the number of positions has grown by a sixteenth;
    kernels are chosen anew each time that number has doubled. State is a function of the updates in order. Without a
    survey image the map needs `grid`, and its kernels know position alone.
    """

    def __init__(self, options: ElementMapOptions, *, grid: MapGrid | None = None) -> None:
        self._lines = {line: _Line() for line in options.lines}
        self._full_exposure_s = options.full_dwell_time_us * 1e-6 * options.bin_px**2
        self._options = options
        self._grid = grid
        self._survey: np.ndarray | None = None
        self._positions = None if grid is None else map_positions(grid.shape_px, None)
        self._indices: list[int] = []
        self._exposures: list[float] = []
        self._spectrum_count = 0
        self._choose_at = self._refresh_at = _FEWEST_POSITIONS

    @property
    def grid(self) -> MapGrid:
        """The map's positions. Raises SpecError before a survey when none was given."""
        if self._grid is None:
            raise SpecError("the map has no grid yet: take a survey frame first, or give the grid in the spec")
        return self._grid

    def update(self, point: Mapping[str, Any], facts: FrameFacts, features: FeatureSet) -> Score:
        """Take in a survey image or one spectrum; the score is the largest predicted relative error of a line.

        Of a spectrum the policy is told the outcomes `counts_<line>`; of a survey the arrays `survey` (rows, columns)
        on the map's grid, `grid_x_nm` (columns,) and `grid_y_nm` (rows,). Raises SpecError outside the grid.
        """
        if "survey" in features.arrays:
            self._take_survey(features)
            arrays = {"survey": self._survey_image(), "grid_x_nm": self.grid.x_nm, "grid_y_nm": self.grid.y_nm}
            return self._score({}, "survey image of the whole field", arrays)
        self._take_spectrum(features)
        self._refresh()
        told: dict[str, tuple[float, float]] = {}
        for line in self._lines:
            counted = features.values[f"counts_{line}"]
            told[f"counts_{line}"] = (counted.value, counted.std if counted.std is not None else 1.0)
        return self._score(
            told, f"{self._spectrum_count} spectra at {len(self._indices)} positions: {self._errors_in_words()}"
        )

    def stop_reason(self) -> str | None:
        """Every line is mapped to the error asked for, or None."""
        errors = [line.error for line in self._lines.values()]
        if any(error is None or error > self._options.target_error for error in errors):
            return None
        return (
            f"every map reached a predicted relative error of {self._options.target_error:g}: {self._errors_in_words()}"
        )

    def summary(self) -> dict[str, Any]:
        """Spectra, positions, and for each line the predicted error of the whole map, the mean rate and the kernels."""
        lines: dict[str, Any] = {}
        if self._is_fitted:
            for name, line in self._lines.items():
                posterior = self._posterior_now(line)
                predicted = self._whole_map(posterior)
                lines[name] = {
                    "predicted_error": predicted.relative_error,
                    "mean_counts_per_cell": float(predicted.mean.mean()),
                    "counts": float(sum(line.counts)),
                    "error_underestimate": posterior.underestimate,
                    "kernels": [_kernel_in_words(kernel) for kernel in posterior.kernels],
                }
        return {
            "objective": "element_map",
            "spectra": self._spectrum_count,
            "positions": len(self._indices),
            "target_error": self._options.target_error,
            "lines": lines,
        }

    def maps(self) -> dict[str, np.ndarray]:
        """`x_nm`, `y_nm`, `survey`, `exposure_fraction`, `rate_<line>`, `rate_std_<line>`; maps are (rows, columns)."""
        if self._grid is None:
            return {}
        shape_px = self._grid.shape_px
        exposed = np.zeros(shape_px)
        exposed.ravel()[self._indices] = self._exposures
        maps = {"x_nm": self._grid.x_nm, "y_nm": self._grid.y_nm, "exposure_fraction": exposed}
        if self._survey is not None:
            maps["survey"] = self._survey
        if self._is_fitted:
            for name, line in self._lines.items():
                predicted = self._whole_map(self._posterior_now(line))
                maps[f"rate_{name}"] = predicted.mean.reshape(shape_px)
                maps[f"rate_std_{name}"] = predicted.std.reshape(shape_px)
        return maps

    def evaluate(self, truth: Mapping[str, Any], maps: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
        """For each line, how `maps` (default: those of now) explain what a replay held out; `truth` is its `truth()`.

        `deviance`, `null_deviance` (mean a cell), `explained` = 1 - deviance / null, `error` relative to the mean rate.
        """
        maps = self.maps() if maps is None else maps
        cell_exposure_us = truth["full_dwell_time_us"] * truth["exposure_ratio"]
        results: dict[str, Any] = {}
        for line in self._lines:
            heldout = truth["heldout_counts"][line]
            counts = self.grid.binned(heldout)
            points = heldout.size // counts.size
            ratio = points * cell_exposure_us * 1e-6 / self._full_exposure_s
            rate = maps[f"rate_{line}"]
            deviance, null = held_out_deviance(rate, counts, ratio), null_deviance(counts)
            results[line] = {
                "deviance": deviance,
                "null_deviance": null,
                "explained": 1 - deviance / null,
                "error": held_out_error(rate, counts, ratio),
            }
        return results

    @property
    def _is_fitted(self) -> bool:
        return all(line.posterior is not None for line in self._lines.values())

    def _take_survey(self, features: FeatureSet) -> None:
        if self._spectrum_count:
            raise SpecError("a survey after spectra: take the survey first, so that the map's grid is known")
        grid = MapGrid.over_survey(features.arrays["x_nm"], features.arrays["y_nm"], self._options.bin_px)
        self._grid = grid
        self._survey = grid.binned(features.arrays["survey"]) / self._options.bin_px**2
        self._positions = map_positions(grid.shape_px, self._survey if self._options.use_survey else None)

    def _survey_image(self) -> np.ndarray:
        if self._survey is None:
            raise SpecError("no survey image has been taken")
        return self._survey

    def _take_spectrum(self, features: FeatureSet) -> None:
        values = features.values
        index = self.grid.index_of(values["x_nm"].value, values["y_nm"].value)
        exposure = values["exposure_s"].value / self._full_exposure_s
        self._spectrum_count += 1
        if index not in self._indices:
            self._indices.append(index)
            self._exposures.append(0.0)
            for line in self._lines.values():
                line.counts.append(0.0)
        at = self._indices.index(index)
        self._exposures[at] += exposure
        for name, line in self._lines.items():
            line.counts[at] += values[f"counts_{name}"].value

    def _counted(self, line: _Line) -> MapCounts:
        return MapCounts(np.array(self._indices), np.array(line.counts), np.array(self._exposures))

    def _where_known(self) -> MapPositions:
        if self._positions is None:
            raise SpecError("the map has no grid yet: take a survey frame first, or give the grid in the spec")
        return self._positions

    def _refresh(self) -> None:
        count = len(self._indices)
        if count < self._refresh_at:
            return
        positions = self._where_known()
        choose = count >= self._choose_at
        some = np.arange(0, len(positions.places), _ERROR_STRIDE)
        for line in self._lines.values():
            before, counted = line.posterior, self._counted(line)
            if before is None or choose:
                kernels = choose_kernels(positions, counted, before.kernels[0].choice if before else None)
            else:
                kernels = before.kernels
            line.posterior = fit_field(positions, counted, kernels, before)
            line.error = line.posterior.rate_map(some).relative_error
        self._refresh_at = count + max(1, count // 16)
        if choose:
            self._choose_at = 2 * count

    def _posterior_now(self, line: _Line) -> FieldPosterior:
        """From all counts of now, whenever the running error was last refreshed."""
        before = line.posterior
        if before is None:
            raise SpecError(f"no map yet: it takes spectra at {_FEWEST_POSITIONS} positions")
        return fit_field(before.positions, self._counted(line), before.kernels, before)

    def _whole_map(self, posterior: FieldPosterior) -> RateMap:
        return posterior.rate_map(np.arange(self.grid.shape_px[0] * self.grid.shape_px[1]))

    def _errors_in_words(self) -> str:
        return ", ".join(
            f"{name} {'not known yet' if line.error is None else f'{line.error:.2f}'}"
            for name, line in self._lines.items()
        )

    def _score(
        self,
        outcomes: dict[str, tuple[float, float]],
        statement: str,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> Score:
        """An error that is not known yet counts as 1."""
        errors = [1.0 if line.error is None else line.error for line in self._lines.values()]
        return Score(value=max(errors), std=0.0, statement=statement, outcomes=outcomes, arrays=dict(arrays or {}))


def _kernel_in_words(kernel: KernelWeight) -> str:
    choice = kernel.choice
    words = f"weight {kernel.weight:.2f}: variance {choice.variance:g}, length {choice.length_fraction:g} of the field"
    if not choice.uses_survey:
        return f"{words}, position alone"
    shares = f"position {choice.position_weight:g}, survey {1 - choice.position_weight:g}"
    return f"{words}, {shares} at {choice.feature_scale:g}"
