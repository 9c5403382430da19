"""One run in memory and everything that came of it: decisions with reasons, frames, scores, maps, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from instruments import AcquireFrame, DoseLedger, Frame, cards
from orchestrator.features.feature_set import FeatureSet
from orchestrator.loop import Ending
from orchestrator.memory_record import MemoryRecord, RehearsedDecision
from orchestrator.objectives.objective import FrameFacts, Score
from policies import SearchSpace, Suggestion
from workflows.evaluation.rehearsal import Performance, scalars
from workflows.notebook.table import Table

if TYPE_CHECKING:
    from workflows.notebook.drawing import Axes

_BOOKKEEPING = ("ledger_", "true_", "wrong_")

Narrator = Callable[[str], None]
Seen = tuple[Score, FeatureSet | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision and what came of it; `electrons` and `instrument_time_s` are spent up to its end.

    `frame` is None where none came, or where frames were not kept; `features` are what was measured in it.
    """

    seq: int
    suggestion: Suggestion
    status: str
    why: str
    electrons: float
    instrument_time_s: float
    score: Score | None = None
    frame: Frame | None = None
    features: FeatureSet | None = None

    @property
    def point(self) -> Mapping[str, Any]:
        """Where and how."""
        return self.suggestion.point

    @property
    def purpose(self) -> str:
        """What the frame was for."""
        return str(self.point.get("purpose", "frame"))

    def _repr_html_(self) -> str:
        rows = {
            "why": self.why,
            **self.point,
            **{f"predicted {name}": f"{m:.4g} ± {s:.2g}" for name, (m, s) in self.suggestion.prediction.items()},
        }
        if self.score is not None:
            rows |= {f"outcome {name}": f"{v:.4g} ± {s:.2g}" for name, (v, s) in self.score.outcomes.items()}
            rows["score after it"] = self.score.statement
        return cards.card(f"Decision {self.seq}", self.status, cards.facts(rows))


@dataclass
class KeptRecord:
    """Fulfils `loop.Record`: a memory record that also keeps suggestions, scores and, if asked for, frames."""

    inner: MemoryRecord
    keeps_frames: bool = True
    suggestions: list[Suggestion] = field(default_factory=list[Suggestion])
    frames: dict[int, Frame] = field(default_factory=dict[int, Frame])
    scores: dict[int, tuple[Score, FeatureSet | None]] = field(
        default_factory=dict[int, tuple[Score, FeatureSet | None]]
    )

    def intend(
        self, suggestion: Suggestion, command_of: Callable[[str], AcquireFrame]
    ) -> tuple[RehearsedDecision, AcquireFrame]:
        """Note the decision."""
        self.suggestions.append(suggestion)
        return self.inner.intend(suggestion, command_of)

    def keep(self, intent: RehearsedDecision, frame: Frame) -> Frame:
        """Keep the frame in memory."""
        if self.keeps_frames:
            self.frames[intent.seq] = frame
        return self.inner.keep(intent, frame)

    def observe(self, intent: RehearsedDecision, facts: FrameFacts, features: FeatureSet, score: Score) -> None:
        """Note what was seen; without frames, neither features nor the arrays of a score are kept."""
        kept = (score, features) if self.keeps_frames else (replace(score, arrays={}), None)
        self.scores[intent.seq] = kept
        self.inner.observe(intent, facts, features, score)

    def mark(self, intent: RehearsedDecision, status: str, reason: str) -> None:
        """Note that nothing came of it."""
        self.inner.mark(intent, status, reason)

    def steps(self) -> tuple[Step, ...]:
        """Everything so far, in order, counted from 1."""
        steps: list[Step] = []
        electrons, seconds = 0.0, 0.0
        for decision, suggestion in zip(self.inner.decisions, self.suggestions, strict=True):
            electrons += decision.electrons
            seconds = seconds if decision.ended_s is None else decision.ended_s
            score, features = self.scores.get(decision.seq, (None, None))
            steps.append(
                Step(
                    seq=decision.seq + 1,
                    suggestion=suggestion,
                    status=decision.status,
                    why=decision.why,
                    electrons=electrons,
                    instrument_time_s=seconds,
                    score=score,
                    frame=self.frames.get(decision.seq),
                    features=features,
                )
            )
        return tuple(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run that came to its end.

    `verdict` holds the answer against the truth and `curve` the same while the run went on, where the world knows the
    truth (simulated, or held-out counts of a replay); both are empty otherwise. `summary` and `maps` are the
    objective's, `ledger` knows the dose of every 1 nm2.
    """

    policy: str
    seed: int
    space: SearchSpace
    ending: Ending
    steps: tuple[Step, ...]
    summary: Mapping[str, Any]
    maps: Mapping[str, np.ndarray]
    verdict: Mapping[str, Any]
    curve: Table
    ledger: DoseLedger

    @classmethod
    def of(cls, name: str, seed: int, space: SearchSpace, record: KeptRecord, done: Performance) -> Trial:
        """What a performance leaves behind."""
        return cls(
            policy=name,
            seed=seed,
            space=space,
            ending=done.ending,
            steps=record.steps(),
            summary=done.experiment.objective.summary(),
            maps=done.experiment.objective.maps(),
            verdict=with_mean_explained(done.verdict),
            curve=Table(f"{name}, seed {seed}", tuple(with_mean_explained(row) for row in done.curve)),
            ledger=done.experiment.microscope.ledger,
        )

    @property
    def electrons(self) -> float:
        """Spent, as the ledger counts them."""
        return self.ledger.electrons

    @property
    def instrument_time_s(self) -> float:
        """Microscope time spent."""
        return self.steps[-1].instrument_time_s if self.steps else 0.0

    @property
    def points(self) -> list[Mapping[str, Any]]:
        """The points of all decisions, in order."""
        return [step.point for step in self.steps]

    @property
    def frames(self) -> list[Frame]:
        """All frames kept, in order."""
        return [step.frame for step in self.steps if step.frame is not None]

    def of_purpose(self, purpose: str) -> list[Step]:
        """The decisions for one purpose: survey, focus, field, revisit."""
        return [step for step in self.steps if step.purpose == purpose]

    @property
    def measure(self) -> str:
        """The number by which runs like this are compared: `recall`, `explained`, or the objective's `score`."""
        return next((name for name in ("recall", "explained") if name in self.verdict), "score")

    def value(self, measure: str | None = None) -> float:
        """A number of the verdict (default: `measure`), NaN where it could not be determined."""
        name = measure or self.measure
        if name == "score":
            scores = [step.score.value for step in self.steps if step.score is not None]
            return scores[-1] if scores else float("nan")
        return scalars(self.verdict).get(name, float("nan"))

    def progress(self, measure: str | None = None) -> Table:
        """electrons, instrument_time_s and one measure while the run went on."""
        name = measure or self.measure
        if name != "score":
            return self.curve
        rows = tuple(
            {"electrons": step.electrons, "instrument_time_s": step.instrument_time_s, "score": step.score.value}
            for step in self.steps
            if step.score is not None
        )
        return Table(self.curve.title, rows)

    def table(self) -> Table:
        """Every decision in a line."""
        rows = tuple(
            {
                "": step.seq,
                "purpose": step.purpose,
                "x_nm": step.point.get("x_nm"),
                "y_nm": step.point.get("y_nm"),
                "status": step.status,
                "why": step.why,
                "score": None if step.score is None else step.score.value,
                "electrons": step.electrons,
            }
            for step in self.steps
        )
        return Table(f"Decisions of {self.policy}, seed {self.seed}", rows)

    def plot(self, measure: str | None = None, against: str = "electrons", axes: Axes | None = None) -> Axes:
        """Draw the measure against `electrons` or `instrument_time_s`; needs matplotlib."""
        from workflows.notebook import drawing

        return drawing.draw_progress([self], measure or self.measure, against, axes)

    def plot_points(self, axes: Axes | None = None) -> Axes:
        """Draw where frames were taken, over what the survey showed; needs matplotlib."""
        from workflows.notebook import drawing

        return drawing.draw_points(self, axes)

    def plot_map(self, name: str, axes: Axes | None = None) -> Axes:
        """Draw one of `maps`; needs matplotlib. Raises KeyError naming those there are."""
        from workflows.notebook import drawing

        return drawing.draw_map(self, name, axes)

    def __str__(self) -> str:
        return "\n".join([f"{self.policy}, seed {self.seed}", *(f"  {name}: {text}" for name, text in self._facts())])

    def _facts(self) -> list[tuple[str, str]]:
        judged = {name: value for name, value in scalars(self.verdict).items() if not name.startswith(_BOOKKEEPING)}
        numbers = judged or {"score": self.value("score")}
        return [
            (self.ending.status, self.ending.reason),
            ("spent", f"{self.electrons:.3g} electrons, {self.instrument_time_s:.1f} s of microscope time"),
            ("decisions", f"{len(self.steps)}: {counted([step.purpose for step in self.steps])}"),
            ("highest dose", f"{self.ledger.max_e_per_a2:,.0f} e/Å²"),
            *((name, cards.words(value)) for name, value in numbers.items()),
        ]

    def _repr_html_(self) -> str:
        return cards.card(f"Run of {self.policy}", f"seed {self.seed}, in memory", cards.facts(self._facts()))


def counted(words: Sequence[str]) -> str:
    """How often each word comes.

    >>> counted(["survey", "field", "field"])
    '1 survey, 2 field'
    """
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def with_mean_explained(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict with `explained`, the mean over the lines of a map, where it has lines."""
    lines = [value for name, value in verdict.items() if name.startswith("explained_") and isfinite(value)]
    return {**verdict, "explained": float(np.mean(lines))} if lines else dict(verdict)


@dataclass
class Narration:
    """A loop listener that says every decision in a line as it is taken."""

    say: Narrator
    _count: int = 0
    _asked: str = ""

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Tell what happened."""
        if kind == "suggested":
            point = payload["point"]
            self._count += 1
            place = f"({point['x_nm']:.1f}, {point['y_nm']:.1f}) nm" if "x_nm" in point and "y_nm" in point else ""
            self._asked = (
                f"{self._count:3d} {point.get('purpose', 'frame'):8} {place:20} {payload['reason'].get('why', '')}"
            )
        elif kind == "scored":
            self.say(f"{self._asked}  ->  {payload['score'].statement}")
        elif kind in ("refused", "failed", "unknown"):
            self.say(f"{self._asked}  ->  {kind}: {payload['reason']}")
