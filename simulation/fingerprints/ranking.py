"""Which entry of a library explains what was counted: posterior, runner-up, electrons still needed, and "none"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from simulation.errors import InvalidParameter
from simulation.fingerprints.likelihood import Counts, Fit, Noise, fit_images, fit_pattern, fit_spectrum
from simulation.fingerprints.measured import Measured
from simulation.fingerprints.misfit import misfit_p_value
from simulation.fingerprints.settings import LibrarySettings
from simulation.fingerprints.storage import Entry, Label

_AXES = ("structure", "thickness_nm", "tilt_x_mrad", "tilt_y_mrad", "defocus_nm")
_MOST_TIMES = 1e9


@dataclass(frozen=True, slots=True)
class Ranking:
    """Entries in the library's order; arrays (entries,).

    `more_electrons`: how many more, spent as those so far, are expected to raise the best entry's posterior odds
    over `rival`'s to what was asked for (0: they are there; inf: these two look alike). `rival` is the best entry
    of another structure, or where there is none the runner-up. `misfit_p_value`: probability of so bad a fit if
    the best entry were true; `is_none_of_these` where it is below the limit.
    """

    labels: tuple[Label, ...]
    log_likelihood: NDArray[np.float64]
    posterior: NDArray[np.float64]
    best: int
    runner_up: int | None
    rival: int | None
    more_electrons: float
    misfit_p_value: float
    is_none_of_these: bool

    def marginal(self, axis: str) -> dict[Any, float]:
        """Posterior by structure, thickness_nm, tilt_x_mrad, tilt_y_mrad or defocus_nm; sums to 1."""
        if axis not in _AXES:
            raise InvalidParameter(f"unknown axis {axis!r}; choose one of {', '.join(_AXES)}")
        found: dict[Any, float] = {}
        for label, probability in zip(self.labels, self.posterior.tolist(), strict=True):
            value = getattr(label, axis)
            value = value if isinstance(value, str) else round(value, 6)
            found[value] = found.get(value, 0.0) + probability
        return found

    def as_plain(self) -> dict[str, Any]:
        """Names, numbers and lists only: for JSON, or for who must not know this package."""
        return {
            **{axis: [getattr(label, axis) for label in self.labels] for axis in _AXES},
            "log_likelihood": self.log_likelihood.tolist(),
            "posterior": self.posterior.tolist(),
            "best": self.best,
            "runner_up": self.runner_up,
            "rival": self.rival,
            "more_electrons": self.more_electrons,
            "misfit_p_value": self.misfit_p_value,
            "is_none_of_these": self.is_none_of_these,
        }


def ranked(
    entries: Sequence[Entry],
    settings: LibrarySettings,
    measured: Measured,
    *,
    prior: Mapping[str, float] | None,
    odds: float,
    reject_probability: float,
) -> Ranking:
    """Every entry held against the counts. `prior`: weight by structure, shared evenly among its entries."""
    if not odds > 1:
        raise InvalidParameter(f"odds = {odds} must be above 1, such as 100")
    check_fits(entries, settings, measured)
    weights = _log_prior(entries, prior)
    fits = [fit(entry, settings, measured) for entry in entries]
    likelihoods = np.array([sum(each.log_likelihood for each in found.values()) for found in fits])
    joint = likelihoods + weights
    posterior = np.exp(joint - logsumexp(joint))
    order = np.argsort(-joint, kind="stable").tolist()
    best = order[0]
    runner_up = order[1] if len(order) > 1 else None
    others = [index for index in order[1:] if entries[index].label.structure != entries[best].label.structure]
    rival = others[0] if others else runner_up
    p_value = _misfit(fits[best], settings, measured)
    needed = 0.0
    if rival is not None:
        start = float(weights[best] - weights[rival])
        needed = _more_electrons(entries[best], entries[rival], settings, measured, fits[best], log(odds) - start)
    labels = tuple(entry.label for entry in entries)
    return Ranking(
        labels, likelihoods, posterior, best, runner_up, rival, needed, p_value, p_value < reject_probability
    )  # fmt: skip


def fit(entry: Entry, settings: LibrarySettings, measured: Measured) -> dict[str, Fit]:
    """The fit of each group that was measured."""
    found: dict[str, Fit] = {}
    noise = _noise(measured)
    if measured.images:
        names = sorted(measured.images)
        found["images"] = fit_images(
            [_channels(measured.images[name]) for name in names],
            [_channels(entry.arrays[f"image.{name}"]) for name in names],
            measured.electrons_e_per_px,
            noise,
            _reach_px(settings, measured),
            tuple(turn // 90 for turn in measured.image_turns_deg),
        )
    if measured.pattern is not None:
        found["pattern"] = fit_pattern(
            np.asarray(measured.pattern, np.float64),
            entry.arrays["pattern"],
            measured.pattern_electrons,
            noise,
            measured.pattern_turns_deg,
        )
    if measured.spectrum is not None:
        found["spectrum"] = _fit_spectrum(entry, settings, measured)
    return found


def _noise(measured: Measured) -> Noise:
    return Noise(measured.dose_uncertainty_fraction, measured.model_error_fraction)


def _fit_spectrum(entry: Entry, settings: LibrarySettings, measured: Measured) -> Fit:
    counts, fractions = np.asarray(measured.spectrum, np.float64), entry.arrays["spectrum"]
    electrons, noise = measured.spectrum_electrons, _noise(measured)
    if not measured.has_background:
        return fit_pattern(counts[None, :], fractions[None, :], electrons, noise, (0.0,))
    assert settings.spectrum is not None
    return fit_spectrum(counts, fractions, np.asarray(settings.spectrum.losses_ev), electrons, noise)


def check_fits(entries: Sequence[Entry], settings: LibrarySettings, measured: Measured) -> None:
    """Refuse what was measured otherwise than the library was made."""
    if not entries:
        raise InvalidParameter("the library is empty; build() it first")
    wanted = {f"image.{name}": array for name, array in measured.images.items()}
    wanted |= {"pattern": measured.pattern} if measured.pattern is not None else {}
    wanted |= {"spectrum": measured.spectrum} if measured.spectrum is not None else {}
    for name, array in wanted.items():
        if name not in entries[0].arrays:
            raise InvalidParameter(
                f"the library holds no {name}; it has {', '.join(sorted(entries[0].arrays))}"
            )  # fmt: skip
        if np.shape(array) != entries[0].arrays[name].shape:
            raise InvalidParameter(
                f"measured {name} has shape {np.shape(array)}, the library's {entries[0].arrays[name].shape}"
            )
    if not measured.images:
        return
    rows, columns = next(iter(measured.images.values())).shape[:2]
    if rows != columns and any(turn % 180 for turn in measured.image_turns_deg):
        raise InvalidParameter(f"an image of {rows} x {columns} pixels can be turned by 180 degrees, not by 90")
    is_fixed = measured.max_shift_nm == 0 and not any(turn % 360 for turn in measured.image_turns_deg)
    for entry in entries:
        if not (is_fixed or all(entry.has_periodic_field)):
            raise InvalidParameter(
                f"the image field is no period of {entry.label.structure!r}, so that shifts and turns are not known"
                " there; choose a field of whole periods, or max_shift_nm=0 and image_turns_deg=(0,)"
            )


def _reach_px(settings: LibrarySettings, measured: Measured) -> tuple[int, int]:
    assert settings.images is not None
    shape, pixels = settings.images.scan.shape_px, settings.images.scan.pixel_nm
    if measured.max_shift_nm is None:
        return shape
    rows, columns = (int(measured.max_shift_nm / pixel + 1e-9) for pixel in pixels)
    return rows, columns


def _channels(image: NDArray[Any]) -> Counts:
    """(channels, rows, columns) of (rows, columns, ...)."""
    flat = np.asarray(image, np.float64).reshape(*image.shape[:2], -1)
    return np.moveaxis(flat, -1, 0)


def _log_prior(entries: Sequence[Entry], prior: Mapping[str, float] | None) -> NDArray[np.float64]:
    names = [entry.label.structure for entry in entries]
    if prior is None:
        return np.full(len(names), -np.log(len(names)))
    missing = sorted(set(names) - set(prior))
    if missing or any(not value > 0 for value in prior.values()):
        raise InvalidParameter(f"prior needs a positive weight for each structure; missing: {missing}")
    total = sum(prior[name] for name in set(names))
    return np.array([log(prior[name] / total / names.count(name)) for name in names])


def _misfit(found: Mapping[str, Fit], settings: LibrarySettings, measured: Measured) -> float:
    """The smallest of the groups' p-values, times their number."""
    p_values: list[float] = []
    for name, own in found.items():
        if name == "images":
            counts = [_channels(measured.images[each]) for each in sorted(measured.images)]
        elif name == "pattern":
            counts = [np.asarray(measured.pattern, np.float64)]
        else:
            counts = [np.asarray(measured.spectrum, np.float64)[None, :]]
        expected = [each.reshape(seen.shape) for each, seen in zip(own.expected, counts, strict=True)]
        p_values.append(misfit_p_value(counts, expected, own.fitted_count, measured.model_error_fraction))
    return min(1.0, len(p_values) * min(p_values))


def _more_electrons(
    best: Entry, rival: Entry, settings: LibrarySettings, measured: Measured, found: Mapping[str, Fit], wanted: float
) -> float:
    """By adding what the best entry would give on average, until the log odds are there; bisected."""

    def reached(times: float) -> float:
        longer = _prolonged(measured, found, times)
        first, second = (fit(entry, settings, longer) for entry in (best, rival))
        return sum(first[name].log_likelihood - second[name].log_likelihood for name in first) - wanted

    if reached(0.0) >= 0:
        return 0.0
    low, high = 0.0, 0.01
    while reached(high) < 0:
        low, high = high, 4 * high
        if high > _MOST_TIMES:
            return float("inf")
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < 0 else (low, middle)
    return high * measured.electrons


def _prolonged(measured: Measured, found: Mapping[str, Fit], times: float) -> Measured:
    """The same measurement gone on for so many times its electrons, with mean counts for what is added."""
    changes: dict[str, Any] = {}
    if "images" in found:
        shaped = zip(sorted(measured.images), found["images"].expected, strict=True)
        added = {name: np.moveaxis(each, 0, -1).reshape(measured.images[name].shape) for name, each in shaped}
        changes["images"] = {name: measured.images[name] + times * each for name, each in added.items()}
        changes["electrons_e_per_px"] = measured.electrons_e_per_px * (1 + times)
    for name in ("pattern", "spectrum"):
        if name in found:
            counts = np.asarray(getattr(measured, name), np.float64)
            changes[name] = counts + times * found[name].expected[0].reshape(counts.shape)
            changes[f"{name}_electrons"] = getattr(measured, f"{name}_electrons") * (1 + times)
    return replace(measured, **changes)
