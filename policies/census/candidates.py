"""Candidate actions with their expected gain and their price; `census` takes the best."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policies.census.detection import confirm_probability
from policies.census.field_plan import FieldModel, FieldPlan, plan_fields
from policies.census.imaging import Imaging, Way
from policies.census.knowledge import Knowledge, column_numbers, site_densities, wanted_mask
from policies.context import Context
from policies.cost import Cost
from policies.fields import bounds_of
from policies.windows import running_sums, sums_from, window_centres_nm, window_maxima

_DOSE_MARGIN_FRACTION = 0.9  # of the local limit: settling, flyback and position errors expose too
_PLAN_VIEW_NM = 16.0
_SEED_COUNT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that could be done next: `gain_count` objects confirmed in the end, for `share` of the budget left."""

    purpose: str
    way: Way
    x_nm: float
    y_nm: float
    view_nm: float
    gain_count: float
    share: float
    cost: Cost
    prediction: dict[str, tuple[float, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def value_ratio(self) -> float:
        """Gain per share: what actions are ranked by."""
        return self.gain_count / max(self.share, 1e-15)


def local_limit(context: Context) -> float:
    """Dose that planned exposures may reach anywhere, in e/A2."""
    limit = context.local_dose_limit_e_per_a2
    return float("inf") if limit is None else _DOSE_MARGIN_FRACTION * limit


def field_plan(knowledge: Knowledge, imaging: Imaging, contrast: float) -> FieldPlan:
    """The economics of first looks, from the densities learned so far and the budget left."""
    context = imaging.context
    contrast = round(contrast, 2)
    first, second = imaging.field_ways, imaging.revisit_ways
    view = min(imaging.views_nm(imaging.settings.field_of_view_options_nm), key=lambda v: abs(v - _PLAN_VIEW_NM))
    small = imaging.views_nm(imaging.settings.revisit_view_options_nm)[0]
    doses = np.array([w.dose_e_per_a2 for w in first])[:, None] + np.array([w.dose_e_per_a2 for w in second])
    model = FieldModel(
        field_distance=imaging.squared_distance(first, contrast),
        revisit_distance=imaging.squared_distance(second, contrast),
        field_share_per_nm2=np.array(
            [imaging.cost(w, view, knowledge.previous).share_of(knowledge.left) / view**2 for w in first]
        ),
        revisit_share=np.array([imaging.cost(w, small, knowledge.previous).share_of(knowledge.left) for w in second]),
        revisit_fits=doses <= local_limit(context),
        density_per_nm2=_in_steps(knowledge.density_per_nm2),
        site_density_per_nm2=site_densities(context),
        column=column_numbers(context),
        wanted=wanted_mask(context),
        error_probability=context.false_discovery_rate,
    )
    unseen = np.where(knowledge.taken_dose_e_per_a2 > 0, 0.0, knowledge.clean)
    return plan_fields(model, float(unseen.sum()) * knowledge.cell_nm**2, imaging.outcomes(model))


def _in_steps(values: np.ndarray) -> np.ndarray:
    """Values to the next of steps of 5 %: the plan does not depend on more, and equal inputs are looked up."""
    return np.exp(np.rint(np.log(values) / 0.05) * 0.05)


def field_actions(
    knowledge: Knowledge, imaging: Imaging, plan: FieldPlan, relative_density: np.ndarray, relative_std: np.ndarray
) -> list[Action]:
    """The best position for each size of field, imaged as planned.

    `relative_density` (rows, columns) multiplies the mean density; `relative_std` is that of its logarithm.
    """
    way = imaging.field_ways[plan.chosen]
    boldness = imaging.settings.exploration_scale * knowledge.budget_left_fraction
    unseen = knowledge.clean * np.clip(1.0 - knowledge.taken_dose_e_per_a2 / (0.5 * way.dose_e_per_a2), 0.0, 1.0)
    hoped = unseen * relative_density * np.exp(boldness * relative_std)
    hoped_sums = running_sums(hoped)
    room = local_limit(imaging.context) - way.dose_e_per_a2
    may_break = bool(knowledge.dose_e_per_a2.max() > room)
    actions: list[Action] = []
    for view in imaging.views_nm(imaging.settings.field_of_view_options_nm):
        cells = round(view / knowledge.cell_nm)
        if cells > min(hoped.shape) or cells < 1:
            continue
        cost = imaging.cost(way, view, knowledge.previous)
        worth = sums_from(hoped_sums, cells) * knowledge.cell_nm**2
        share = cost.share_of(knowledge.left) + plan.revisit_share_per_nm2 * worth
        forbidden = window_maxima(knowledge.dose_e_per_a2, cells) > room if may_break else np.zeros_like(worth, bool)
        x_nm, y_nm = window_centres_nm(knowledge.x_nm, cells), window_centres_nm(knowledge.y_nm, cells)
        forbidden |= ~_within(y_nm, imaging, "y_nm")[:, None] | ~_within(x_nm, imaging, "x_nm")[None, :]
        ratio = np.where(forbidden, -1.0, worth * plan.value_per_nm2 / share)
        row, column = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        if ratio[row, column] <= 0:
            continue
        window = (slice(row, row + cells), slice(column, column + cells))
        area = float(unseen[window].sum()) * knowledge.cell_nm**2
        expected = float((unseen * relative_density)[window].sum()) * knowledge.cell_nm**2
        found = expected * float(knowledge.density_per_nm2[wanted_mask(imaging.context)].sum())
        actions.append(
            Action(
                purpose="field",
                way=way,
                x_nm=float(x_nm[column]),
                y_nm=float(y_nm[row]),
                view_nm=view,
                gain_count=float(worth[row, column]) * plan.value_per_nm2,
                share=float(share[row, column]),
                cost=cost,
                prediction={"found": (found, float(np.sqrt(found + 0.25))), "clean_area_nm2": (area, 0.1 * area)},
                details={"clean_area_nm2": area, "expected_natives": found},
            )
        )
    return actions


def revisit_actions(knowledge: Knowledge, imaging: Imaging, contrast: float) -> list[Action]:
    """Second looks at undecided sites, one or several in a view, by the expected number that ends confirmed."""
    if len(knowledge.undecided_x_nm) == 0:
        return []
    ways = imaging.revisit_ways
    distance = imaging.squared_distance(ways, contrast)
    confirmed = confirm_probability(
        knowledge.undecided_posterior[:, None], distance[None], imaging.context.false_discovery_rate
    )
    wanted = wanted_mask(imaging.context)
    gain = np.einsum("ns,nws->nw", knowledge.undecided_posterior[:, 1:] * wanted, confirmed)
    given = knowledge.at(knowledge.dose_e_per_a2, knowledge.undecided_x_nm, knowledge.undecided_y_nm)
    doses = np.array([way.dose_e_per_a2 for way in ways])
    gain[given[:, None] + doses[None, :] > local_limit(imaging.context)] = 0.0
    gain[_refused_nearby(knowledge)] = 0.0
    actions: list[Action] = []
    for view in imaging.views_nm(imaging.settings.revisit_view_options_nm):
        costs = [imaging.cost(way, view, knowledge.previous) for way in ways]
        shares = np.array([cost.share_of(knowledge.left) for cost in costs])
        actions += _grouped(knowledge, imaging, view, gain, costs, shares)
    return actions


def _grouped(
    knowledge: Knowledge, imaging: Imaging, view: float, gain: np.ndarray, costs: list[Cost], shares: np.ndarray
) -> list[Action]:
    x, y = knowledge.undecided_x_nm, knowledge.undecided_y_nm
    reach = max(view / 2 - imaging.settings.revisit_margin_nm, 0.1)
    seeds = np.argsort(-np.max(gain / shares, axis=1), kind="stable")[:_SEED_COUNT]
    actions: list[Action] = []
    for seed in seeds:
        near = (np.abs(x - x[seed]) <= reach) & (np.abs(y - y[seed]) <= reach) & (gain.max(axis=1) > 0)
        centres = [(x[seed], y[seed])]
        if near.sum() > 1:
            centres.append(((x[near].min() + x[near].max()) / 2, (y[near].min() + y[near].max()) / 2))
        for centre_x, centre_y in centres:
            inside = (np.abs(x - centre_x) <= reach) & (np.abs(y - centre_y) <= reach)
            gains = gain[inside].sum(axis=0)
            best = int(np.argmax(gains / shares))
            spot = (np.array([centre_x]), np.array([centre_y]))
            allowed = all(
                abs(value - np.clip(value, *bounds_of(imaging.space, name))) < 1e-9
                for name, value in (("x_nm", centre_x), ("y_nm", centre_y))
            )
            peak = _peak_dose(knowledge, float(centre_x), float(centre_y), view)
            too_much = peak + imaging.revisit_ways[best].dose_e_per_a2 > local_limit(imaging.context)
            if gains[best] <= 0 or not allowed or too_much:
                continue
            actions.append(
                Action(
                    purpose="revisit",
                    way=imaging.revisit_ways[best],
                    x_nm=float(spot[0][0]),
                    y_nm=float(spot[1][0]),
                    view_nm=view,
                    gain_count=float(gains[best]),
                    share=float(shares[best]),
                    cost=costs[best],
                    details={
                        "site_count": int(inside.sum()),
                        "posterior": [round(float(p), 4) for p in knowledge.undecided_posterior[seed]],
                        "dose_so_far_e_per_a2": round(peak, 1),
                    },
                )
            )
    return actions


def _peak_dose(knowledge: Knowledge, x_nm: float, y_nm: float, view_nm: float) -> float:
    """Largest dose so far in any cell that a view touches."""
    half = view_nm / 2 + knowledge.cell_nm / 2
    rows = np.abs(knowledge.y_nm - y_nm) <= half
    columns = np.abs(knowledge.x_nm - x_nm) <= half
    touched = knowledge.dose_e_per_a2[np.ix_(rows, columns)]
    return float(touched.max()) if touched.size else 0.0


def _refused_nearby(knowledge: Knowledge) -> np.ndarray:
    """(n,) sites whose second look was refused before."""
    barred = np.zeros(len(knowledge.undecided_x_nm), dtype=bool)
    for observation in knowledge.observations:
        if observation.status == "refused" and observation.point.get("purpose") == "revisit":
            reach = float(observation.point["field_of_view_nm"]) / 2
            barred |= (np.abs(knowledge.undecided_x_nm - float(observation.point["x_nm"])) <= reach) & (
                np.abs(knowledge.undecided_y_nm - float(observation.point["y_nm"])) <= reach
            )
    return barred


def _within(values: np.ndarray, imaging: Imaging, name: str) -> np.ndarray:
    low, high = bounds_of(imaging.space, name)
    return (values >= low - 1e-9) & (values <= high + 1e-9)
