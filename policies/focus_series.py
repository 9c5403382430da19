"""The `focus_series` policy: a short defocus series, widened or exposed longer once, then frames on the slopes.

It sees `best_defocus_nm`, `focus_width_nm` and nothing of images; who makes them is the caller's business. A frame
without any outcome was not measured: lost, refused, or nothing could be said of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.context import Context
from policies.dimensions import Point
from policies.errors import InvalidOption
from policies.fields import bounds_of, cost_of, fixed_point, placed
from policies.history import History
from policies.observation import Observation
from policies.policy import GaveUp
from policies.space import SearchSpace
from policies.suggestion import Suggestion, suggestion_id

_DEFOCUS = "defocus_nm"
_DEFAULT_SPAN_FRACTION = 0.6  # of the space, for the first series


@dataclass(frozen=True, slots=True)
class _Step:
    """One frame to take: its defocus, its dwell over the first, and why."""

    defocus_nm: float
    dose_factor: float
    why: str


class FocusSeries:
    """Finds the defocus of best contrast with few frames; a pure function of its observations.

    `count` frames from `low_nm` to `high_nm`. If the best lies outside, once as many more with the same step on that
    side, within the space; if nothing was seen at all, once the same again with `dose_factor` times the dwell. Each
    series goes upwards, also one on the lower side, which begins at its far end (lenses have hysteresis). Then up to
    `refine_count` frames one curve width to the lower and the upper side of the best in turn, where the sharpness is
    steepest, until its standard error is `target_std_nm`. Gives up where no peak lies within the defoci measured.
    """

    name = "focus_series"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        context: Context | None = None,
        low_nm: float | None = None,
        high_nm: float | None = None,
        count: int = 6,
        refine_count: int = 4,
        target_std_nm: float = 0.3,
        dose_factor: float = 4.0,
        fixed: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.space = space
        self.context = context or Context()
        self.history = History(self.name, space, seed, latest_arrays_only=True)
        bottom, top = bounds_of(space, _DEFOCUS)
        margin = (1 - _DEFAULT_SPAN_FRACTION) / 2 * (top - bottom)
        low = bottom + margin if low_nm is None else low_nm
        high = top - margin if high_nm is None else high_nm
        if not bottom <= low < high <= top:
            raise InvalidOption(
                f"low_nm {low:g} nm and high_nm {high:g} nm must be in order and within the space's "
                f"{bottom:g} to {top:g} nm of defocus"
            )
        if count < 3 or refine_count < 0 or not target_std_nm > 0 or not dose_factor >= 1:
            raise InvalidOption(
                f"count {count} must be at least 3, refine_count {refine_count} at least 0, target_std_nm "
                f"{target_std_nm} nm above 0, dose_factor {dose_factor} at least 1"
            )
        self.bounds_nm = (bottom, top)
        self.refine_count, self.target_std_nm, self.dose_factor = refine_count, target_std_nm, dose_factor
        self.fixed = fixed_point(space, {"purpose": "calibrate", **(fixed or {}), **settings}, (_DEFOCUS,))
        self.first = [float(value) for value in np.linspace(low, high, count)]

    @property
    def most_frames(self) -> int:
        """More frames than this are never asked for."""
        return 2 * len(self.first) + self.refine_count

    @property
    def dearest_point(self) -> Point:
        """The costliest point that may be asked for."""
        return self._point(_Step(self.first[0], self.dose_factor, ""))

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """The next frames; a batch ends where the next frame depends on what these will show."""
        suggestions: list[Suggestion] = []
        done = self.history.observations
        previous = done[-1].point if done else None
        for place in range(count):
            step = self._step(len(done) + place)
            if not isinstance(step, _Step):
                break
            point = self._point(step)
            best = _best(done)
            suggestions.append(
                Suggestion(
                    id=suggestion_id(self.name, self.history.seed, len(done), place),
                    policy=self.name,
                    ordinal=len(done) + place,
                    point=point,
                    prediction={} if best is None else {"best_defocus_nm": best},
                    cost=cost_of(point, previous, self.context),
                    reason={"why": step.why},
                )
            )
            previous = point
        return suggestions

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Append observations."""
        self.history.append(observations)

    def should_stop(self) -> str | None:
        """The focus found, in words; a `GaveUp` where there is none; None while frames are missing."""
        step = self._step(len(self.history))
        return None if isinstance(step, _Step) else step

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return self.history.snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a snapshot."""
        self.history.restore(state)

    def _step(self, ordinal: int) -> _Step | str:
        """Frame number `ordinal` from 0, or why there is none."""
        done = self.history.observations
        if ordinal < len(self.first):
            return _Step(
                self.first[ordinal], 1.0, f"focus frame {ordinal + 1} of the first series of {len(self.first)}"
            )
        if len(done) < len(self.first):
            return "waits for the first series"
        second = self._second(done[: len(self.first)])
        if any(o.status == "refused" for o in done[len(self.first) :][: len(second)]):
            return GaveUp(f"{self._nothing(done)}; what was to come next was refused")
        ordinal -= len(self.first)
        if ordinal < len(second):
            return second[ordinal]
        if len(done) < len(self.first) + len(second):
            return "waits for the second series"
        return self._slope(ordinal - len(second), second[-1].dose_factor if second else 1.0)

    def _second(self, first: Sequence[Observation]) -> list[_Step]:
        """What is worth trying once when the first series did not show a peak inside its range."""
        best = _best(first)
        low, high = self.first[0], self.first[-1]
        if best is None:
            if self.dose_factor == 1 or "dwell_time_us" not in self.fixed:
                return []
            why = f"nothing seen in the first series: again with {self.dose_factor:g} times the dwell"
            return [_Step(value, self.dose_factor, why) for value in self.first]
        if low <= best[0] <= high:
            return []
        step = (high - low) / (len(self.first) - 1)
        end, side = (self.bounds_nm[0], -1.0) if best[0] < low else (self.bounds_nm[1], 1.0)
        start = low if side < 0 else high
        wider = sorted(start + side * step * (number + 1) for number in range(len(self.first)))
        why = f"the best seems to be at {best[0]:.1f} nm, outside {low:g} to {high:g} nm: further on that side"
        return [_Step(value, 1.0, why) for value in wider if side * (end - value) >= -1e-9]

    def _slope(self, number: int, dose_factor: float) -> _Step | str:
        """Frames beside the peak, below and above in turn; words when they are done or there is no peak."""
        done = self.history.observations
        best = _best(done)
        if best is None:
            return GaveUp(self._nothing(done))
        tried = [float(o.point[_DEFOCUS]) for o in _measured(done)]
        low, high = min(tried), max(tried)
        if not low <= best[0] <= high:
            return GaveUp(f"no focus found: the best is outside {low:g} to {high:g} nm of defocus")
        if number >= self.refine_count or best[1] <= self.target_std_nm:
            return f"focus found at {best[0]:.2f} nm of defocus, standard error {best[1]:.2f} nm, {len(tried)} frames"
        width = _latest(done, "focus_width_nm")
        reach = width[0] if width is not None else (self.first[1] - self.first[0]) / 2
        side = -1.0 if number % 2 == 0 else 1.0
        wanted = min(max(best[0] + side * reach, self.bounds_nm[0]), self.bounds_nm[1])
        why = f"focus frame on the {'lower' if side < 0 else 'upper'} slope of the peak at {best[0]:.2f} nm"
        return _Step(wanted, dose_factor, f"{why}, known to {best[1]:.2f} nm")

    def _nothing(self, done: Sequence[Observation]) -> str:
        tried = [float(o.point[_DEFOCUS]) for o in _measured(done)]
        if not tried:
            return f"no focus found: none of {len(done)} frames could be measured"
        return f"no focus found: nothing sharper than noise from {min(tried):g} to {max(tried):g} nm of defocus"

    def _point(self, step: _Step) -> Point:
        point = {**self.fixed, _DEFOCUS: step.defocus_nm}
        if step.dose_factor != 1:
            point["dwell_time_us"] = float(self.fixed["dwell_time_us"]) * step.dose_factor
        return placed(self.space, point)


def _measured(observations: Sequence[Observation]) -> list[Observation]:
    return [o for o in observations if o.status == "done" and o.outcomes]


def _best(observations: Sequence[Observation]) -> tuple[float, float] | None:
    return _latest(observations, "best_defocus_nm")


def _latest(observations: Sequence[Observation], name: str) -> tuple[float, float] | None:
    """The outcome as the latest measured frame gave it: an outcome that vanished again is not one."""
    measured = _measured(observations)
    return measured[-1].outcomes.get(name) if measured else None
