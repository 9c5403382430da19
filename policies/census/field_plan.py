"""What one nm2 of clean, unseen specimen is worth and costs, for every way of imaging it, later revisits included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.census.detection import confirm_probability, exceeds, false_alarm

_ROUNDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldModel:
    """Inputs of the plan. C ways of a first look, R ways of a second.

    field_distance       (C, 1 + S, 1 + S) d^2 of each first look; revisit_distance (R, 1 + S, 1 + S) of each second
    field_share_per_nm2  (C,) cost per nm2 and revisit_share (R,) cost of one second look, as shares of the budget left
    revisit_fits         (C, R) whether both doses together respect the local limit
    density_per_nm2      (S,) species per clean nm2; site_density_per_nm2 (S,) sites of the column of each
    column               (S,) number of the column of each species
    wanted               (S,) whether confirming it counts
    """

    field_distance: np.ndarray
    revisit_distance: np.ndarray
    field_share_per_nm2: np.ndarray
    revisit_share: np.ndarray
    revisit_fits: np.ndarray
    density_per_nm2: np.ndarray
    site_density_per_nm2: np.ndarray
    column: np.ndarray
    wanted: np.ndarray
    error_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlan:
    """The chosen first look.

    `value_per_nm2`: objects confirmed in the end; `share_per_nm2` of the first look, `revisit_share_per_nm2` of the
    second looks it will call for; `rate`: objects confirmed per whole budget left, the worth of a unit of cost now;
    `is_area_limited`: the budget outlasts the clean area, so dose is spent more freely.
    """

    chosen: int
    value_per_nm2: float
    share_per_nm2: float
    revisit_share_per_nm2: float
    rate: float
    is_area_limited: bool
    value_by_option: np.ndarray
    share_by_option: np.ndarray


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Probabilities that do not depend on prices: (C, S) confirmed at first look; (C, R, S) after a second one too."""

    first: np.ndarray
    both: np.ndarray


def outcomes_of(model: FieldModel) -> Outcomes:
    """Confirmation after one look and after two, for a site that starts from the prior densities."""
    prior = _prior(model)
    own = np.arange(prior.shape[0])
    first = confirm_probability(prior, model.field_distance[:, None], model.error_probability)[:, own, own]
    together = model.field_distance[:, None, None] + model.revisit_distance[None, :, None]
    both = confirm_probability(prior, together, model.error_probability)[..., own, own]
    return Outcomes(first, np.where(model.revisit_fits[..., None], both, 0.0))


def outcome_per_nm2(model: FieldModel, outcomes: Outcomes, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """(C,) objects confirmed per nm2 and (C,) share spent on second looks per nm2, when a unit of cost is worth `rate`.

    Of the sites of species s a part is confirmed at first look. The rest is looked at again when the log-likelihood
    ratio against the host passes the threshold at which a second look is worth its cost:
    posterior * P(confirmed then) = rate * cost. Hosts that pass by chance, and unwanted species, cost the same and
    bring nothing.
    """
    direct, final = outcomes.first, outcomes.both
    chosen = np.argmax(final - rate * model.revisit_share[None, :, None], axis=1)  # (C, S)
    gain = np.take_along_axis(final, chosen[:, None, :], axis=1)[:, 0]
    price = model.revisit_share[chosen]
    needed = np.clip(rate * price / np.maximum(gain, 1e-9), 1e-6, 1.0)
    odds = model.density_per_nm2 / model.site_density_per_nm2
    worth = (needed < 1.0) & model.wanted
    with np.errstate(divide="ignore"):
        threshold = np.where(worth, np.log(needed) - np.log1p(-np.minimum(needed, 1 - 1e-9)) - np.log(odds), np.inf)
    against_host = model.field_distance[:, 0, 1:]
    again = np.maximum(exceeds(threshold, against_host) - direct, 0.0)
    value = (model.density_per_nm2 * (direct + again * gain))[:, model.wanted].sum(axis=1)
    false = model.site_density_per_nm2 * false_alarm(threshold, against_host)
    spent = (model.density_per_nm2 * again + false) * price
    look_alikes = _unwanted(model, threshold, price)
    return value, spent[:, model.wanted].sum(axis=1) + look_alikes


def plan_fields(model: FieldModel, clean_area_nm2: float, outcomes: Outcomes | None = None) -> FieldPlan:
    """The first look that spends the budget best on `clean_area_nm2` of clean specimen not yet seen.

    While the area outlasts the budget: the largest value per cost (Dinkelbach's iteration on the rate). Where the
    budget outlasts the area: the rate falls (bisection) until imaging all of it spends 95 % of the budget.
    """
    rate = 1.0
    outcomes = outcomes or outcomes_of(model)
    value, share = model.field_share_per_nm2, model.field_share_per_nm2
    again = np.zeros_like(share)
    for _ in range(_ROUNDS):
        value, again = outcome_per_nm2(model, outcomes, rate)
        share = model.field_share_per_nm2 + again
        rate = max(float(np.max(value / share)), 1e-9)
    chosen = int(np.argmax(value / share))
    limited = clean_area_nm2 * float(share[chosen]) < 0.95
    if limited:
        rate = _rate_that_spends(model, outcomes, clean_area_nm2, rate)
        value, again = outcome_per_nm2(model, outcomes, rate)
        share = model.field_share_per_nm2 + again
        chosen = int(np.argmax(value - rate * share))
    return FieldPlan(
        chosen=chosen,
        value_per_nm2=float(value[chosen]),
        share_per_nm2=float(model.field_share_per_nm2[chosen]),
        revisit_share_per_nm2=float(again[chosen]),
        rate=rate,
        is_area_limited=limited,
        value_by_option=value,
        share_by_option=share,
    )


def _rate_that_spends(model: FieldModel, outcomes: Outcomes, clean_area_nm2: float, highest: float) -> float:
    low, high = np.log(highest * 1e-3), np.log(highest)
    for _ in range(8):
        middle = (low + high) / 2
        value, again = outcome_per_nm2(model, outcomes, float(np.exp(middle)))
        share = model.field_share_per_nm2 + again
        best = int(np.argmax(value - np.exp(middle) * share))
        if clean_area_nm2 * share[best] > 0.95:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


def _prior(model: FieldModel) -> np.ndarray:
    """(S, 1 + S): prior of a site of the column of each species; the species of other columns are impossible there."""
    share = model.density_per_nm2 / model.site_density_per_nm2
    same = model.column[:, None] == model.column[None, :]
    species = np.where(same, share[None, :], 0.0)
    return np.concatenate([1 - species.sum(axis=1, keepdims=True), species], axis=1)


def _unwanted(model: FieldModel, threshold: np.ndarray, price: np.ndarray) -> np.ndarray:
    """(C,) share per nm2 spent on species that do not count but look like one that does."""
    spent = np.zeros(len(threshold))
    for k in np.flatnonzero(~model.wanted):
        rivals = np.flatnonzero(model.wanted & (model.column == model.column[k]))
        if len(rivals):
            lowest = np.argmin(threshold[:, rivals], axis=1)
            rows = np.arange(len(threshold))
            passing = exceeds(threshold[rows, rivals[lowest]], model.field_distance[:, 0, k + 1])
            spent += model.density_per_nm2[k] * passing * price[rows, rivals[lowest]]
    return spent
