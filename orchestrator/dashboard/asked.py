"""What an experiment is asked to find out, in a table of a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from orchestrator.dashboard.phrases import duration
from orchestrator.report.headline import scientific

QUESTIONS: Mapping[str, str] = {
    "brightness": "Where is most counted?",
    "defect_census": "Which point defects are there, where, and how many per area?",
    "element_map": "Where are the elements?",
}


def what_is_asked(spec: Mapping[str, Any], seed: int) -> list[tuple[str, str]]:
    """(what, words): specimen, question, instrument, policy, budget and limits; unknown keys are left out."""
    specimen, instrument = spec.get("specimen", {}), spec.get("instrument", {})
    rows = [
        ("specimen", _specimen(specimen)),
        ("question", question(spec)),
        ("looks for", _species(spec)),
        ("instrument", str(instrument.get("name", ""))),
        ("policy", str(spec.get("policy", {}).get("name", ""))),
        ("may spend", _budget(spec.get("budget", {}))),
        ("never more than", _limits(spec.get("safety", {}))),
        ("proposal", str(spec.get("proposal") or "")),
        ("seed", str(seed)),
    ]
    labels = [(key, str(value)) for key, value in spec.get("labels", {}).items() if key != "question"]
    return [(what, words) for what, words in [*rows, *labels] if words]


def question(spec: Mapping[str, Any]) -> str:
    """The question in the experimenter's words (label `question`), else the objective's."""
    named = spec.get("labels", {}).get("question")
    objective = str(spec.get("objective", {}).get("name", ""))
    return str(named) if named else QUESTIONS.get(objective, objective.replace("_", " "))


def _specimen(specimen: Mapping[str, Any]) -> str:
    words = [str(specimen.get("material", ""))]
    if specimen.get("thickness_nm") is not None:
        words.append(f"{specimen['thickness_nm']:g} nm thick")
    if specimen.get("structure"):
        words.append(f"structure {PurePath(str(specimen['structure'])).name}")
    return ", ".join(words)


def _species(spec: Mapping[str, Any]) -> str:
    options = spec.get("objective", {}).get("options", {})
    wanted = options.get("determinable") or options.get("lines") or ()
    words = ", ".join(map(str, wanted))
    if words and "false_discovery_rate" in options:
        words += f", of what is reported at most {options['false_discovery_rate']:.0%} wrong"
    return words


def _budget(budget: Mapping[str, Any]) -> str:
    words: list[str] = []
    if budget.get("electrons") is not None:
        words.append(f"{scientific(budget['electrons'])} electrons")
    if budget.get("instrument_time_s") is not None:
        words.append(f"{duration(budget['instrument_time_s'])} of microscope time")
    if budget.get("frames") is not None:
        words.append(f"{budget['frames']:,} frames")
    return ", ".join(words)


def _limits(safety: Mapping[str, Any]) -> str:
    named = (
        ("max_dose_e_per_a2", "{:,.0f} e/Å² anywhere"),
        ("max_current_pa", "{:g} pA"),
        ("max_beam_shift_nm", "{:g} nm of beam shift"),
        ("max_exposure_s", "{:g} s in one exposure"),
    )
    return ", ".join(words.format(safety[key]) for key, words in named if safety.get(key) is not None)
