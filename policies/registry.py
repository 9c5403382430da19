"""Policies by name: built-in ones first, then entry points of the group `stempilot.policies`."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from policies.context import Context
from policies.errors import InvalidOption, UnknownPolicy
from policies.policy import Policy
from policies.space import SearchSpace

GROUP = "stempilot.policies"
_BUILT_IN = {
    "raster": "policies.baselines.raster:Raster",
    "full_raster": "policies.baselines.full_raster:FullRaster",
    "thin_raster": "policies.baselines.thin_raster:ThinRaster",
    "random": "policies.baselines.random_points:RandomPoints",
    "listed": "policies.baselines.listed:Listed",
    "sobol": "policies.baselines.sobol:Sobol",
    "ranked": "policies.baselines.ranked:Ranked",
    "survey_rank": "policies.baselines.survey_rank:SurveyRank",
    "oracle": "policies.baselines.oracle:Oracle",
    "bayesian": "policies.bayesian:Bayesian",
    "mapping": "policies.mapping:Mapping",
    "census": "policies.census:Census",
    "focus_series": "policies.focus_series:FocusSeries",
}


def _known() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)} | _BUILT_IN


def names() -> tuple[str, ...]:
    """Every policy that can be created, sorted.

    >>> {"census", "raster", "sobol"} <= set(names())
    True
    """
    return tuple(sorted(_known()))


def create(name: str, space: SearchSpace, *, seed: int, context: Context | None = None, **options: Any) -> Policy:
    """A new policy over `space`. Raises UnknownPolicy, or InvalidOption for an option the policy does not take.

    >>> from policies import Continuous
    >>> policy = create("sobol", SearchSpace({"x_nm": Continuous(0, 10)}), seed=1)
    >>> policy.suggest()[0].id
    'sobol-1-0000'
    """
    known = _known()
    if name not in known:
        raise UnknownPolicy(f"no policy is called {name!r}; known: {', '.join(sorted(known))}")
    module_name, _, class_name = known[name].partition(":")
    factory = getattr(import_module(module_name), class_name)
    try:
        return cast("Policy", factory(space, seed=seed, context=context or Context(), **options))
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InvalidOption(f"policy {name} does not take these options: {error}") from error
