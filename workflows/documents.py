"""Experiments as plain documents: what `run --json`, `show --json` and `list --json` print."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from instruments import DoseLedger
from instruments.book_entries import ExtraDebit
from orchestrator.catalogue import Catalogue, ExperimentRow
from orchestrator.events import EXTRA_DEBIT
from workflows.left_running import left_running

_TRUTH_KEYS = ("recall", "false_discovery_rate", "electrons", "instrument_time_s")


def experiment_document(catalogue: Catalogue, experiment_id: str) -> dict[str, Any]:
    """The whole of one experiment, JSON-able."""
    row = catalogue.experiment(experiment_id)
    note = left_running(catalogue, [row]).get(row.id)
    closed = _last(catalogue, row.id, "closed")
    evaluated = _last(catalogue, row.id, "evaluated")
    observed = {event.payload["decision_id"]: event.payload for event in catalogue.events(row.id, kinds=("observed",))}
    latest = next(reversed(observed.values()), {})
    decided = catalogue.decisions(row.id)
    stored = catalogue.frames(row.id)  # after the decisions: a run that goes on may store another meanwhile
    frames = [
        {
            "id": frame.id, "decision_id": frame.decision_id, "path": frame.path, "sha256": frame.sha256,
            "dose_e_per_a2": frame.dose_e_per_a2, "electrons": frame.electrons,
            "acquired_at": frame.acquired_at.isoformat(), "purpose": frame.purpose, "mode": frame.mode,
        }
        for frame in stored
    ]  # fmt: skip
    decisions = [
        {
            "seq": entry.decision.seq, "id": entry.id, "point": entry.decision.point, "reason": entry.decision.reason,
            "status": entry.status, "status_reason": entry.status_reason, "prediction": entry.decision.prediction,
            "cost": entry.decision.cost, "frame_id": entry.frame_id,
            "score": observed.get(entry.id, {}).get("score", {}).get("value"),
        }
        for entry in decided
    ]  # fmt: skip
    spent = spent_by(catalogue, row, closed)
    document: dict[str, Any] = {
        "id": row.id, "name": row.name, "status": row.status, "reason": row.reason, "note": note,
        "spec": row.spec, "seed": row.seed,
        "engine": row.engine, "created_at": row.created_at.isoformat(),
        "electrons": spent.get("electrons", 0.0), "dose_max_e_per_a2": spent.get("dose_max_e_per_a2", 0.0),
        "instrument_time_s": spent.get("instrument_time_s", 0.0), "wall_time_s": closed.get("wall_time_s"),
        "score": latest.get("score", {}).get("value"), "summary": closed.get("summary"),
        "frames": frames, "decisions": decisions,
    }  # fmt: skip
    if evaluated:
        document["truth"] = evaluated["truth"]
        document["baselines"] = {
            name: {
                key: value for key, value in verdict.items() if key not in ("decisions", "found", "curve", "summary")
            }
            for name, verdict in evaluated.get("baselines", {}).items()
        }
    return document


def spent_by(catalogue: Catalogue, row: ExperimentRow, closed: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an experiment has cost: as its last `closed` event says, if that is the ending it stands at.

    Where it went on since, at least what its stored frames cost; never less than was known then.
    """
    if closed.get("status") == row.status:
        return closed
    return {name: max(value, closed.get(name, 0.0)) for name, value in _spent_so_far(catalogue, row.id).items()}


def _spent_so_far(catalogue: Catalogue, experiment_id: str) -> dict[str, float]:
    """What the stored frames have cost; they are read before the commands, so that each has its own there."""
    ledger = DoseLedger()
    stored = catalogue.frames(experiment_id)
    commands = {intent.frame_id: intent.command for intent in catalogue.intents(experiment_id)}
    for frame in stored:
        ledger.add_frame(commands[frame.id], frame.electrons)
    for event in catalogue.events(experiment_id, kinds=(EXTRA_DEBIT,)):
        ExtraDebit.model_validate(event.payload).book(ledger)
    return {
        "frames": len(stored),
        "electrons": ledger.electrons,
        "dose_max_e_per_a2": ledger.max_e_per_a2,
        "instrument_time_s": sum((frame.ended_s - frame.started_s for frame in stored), 0.0),
    }


def _last(catalogue: Catalogue, experiment_id: str, kind: str) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for event in catalogue.events(experiment_id, kinds=(kind,)):
        payload = event.payload
    return payload


def listing(catalogue: Catalogue, *, include_children: bool) -> list[dict[str, Any]]:
    """Every experiment, newest first."""
    rows = catalogue.experiments(include_children=include_children)
    notes = left_running(catalogue, rows)
    return [_line(row, notes.get(row.id)) for row in rows]


def _line(row: ExperimentRow, note: str | None) -> dict[str, Any]:
    return {
        "id": row.id, "status": row.status, "name": row.name, "created_at": row.created_at.isoformat(),
        "reason": row.reason, "seed": row.seed, "parent_id": row.parent_id, "note": note,
    }  # fmt: skip


def headline(document: Mapping[str, Any]) -> list[str]:
    """The answer in a few lines: what was found, what it cost, how the baselines did."""
    lines = [
        f"{document['name']}  [{document['id']}]",
        f"{document['status']}: {document.get('note') or document['reason']}",
        (
            f"spent {document['electrons']:.3g} electrons, "
            f"at most {document['dose_max_e_per_a2']:.0f} e/A2 in any 1 nm2, "
            f"{document['instrument_time_s']:.1f} s of microscope time, {len(document['frames'])} frames"
        ),
    ]
    lines += _answer(document.get("summary") or {})
    truth = document.get("truth")
    if truth:
        is_held_out = any(key.startswith("explained_") for key in truth)
        lines.append("against the held-out half of the counts:" if is_held_out else "against the hidden truth:")
        lines += [_verdict("this run", {**truth, **{key: document[key] for key in ("electrons", "instrument_time_s")}})]
        lines += [_verdict(name, verdict) for name, verdict in (document.get("baselines") or {}).items()]
        if "ledger_error_fraction" in truth:
            lines.append(f"dose ledger minus world: {truth['ledger_error_fraction']:+.2%} of the electrons")
    return lines


def _answer(summary: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, species in summary.get("species", {}).items():
        high = species["whole_high_per_nm2"]
        density = (
            "density not determined: nothing analysed"
            if high is None or not isfinite(high)
            else f"density {species['whole_per_nm2']:.5f} per nm2 of clean specimen "
            f"(95 %: {species['whole_low_per_nm2']:.5f} to {high:.5f})"
        )
        lines.append(f"  {name:6s} {species['confirmed']:4d} confirmed; {density}")
    for name, line in summary.get("lines", {}).items():
        lines.append(f"  {name}: predicted error {line.get('predicted_error', float('nan')):.1%}")
    return lines


def _verdict(name: str, verdict: Mapping[str, Any]) -> str:
    numbers = {key: verdict.get(key) for key in _TRUTH_KEYS}
    words = [f"  {name:13s}"]
    if numbers["recall"] is not None:
        words.append(f"recall {numbers['recall']:.3f}")
    if numbers["false_discovery_rate"] is not None:
        words.append(f"false discovery rate {numbers['false_discovery_rate']:.3f}")
    explained = {key: value for key, value in verdict.items() if key.startswith("explained_")}
    if explained:
        words.append("held-out deviance explained:")
        words += [f"{key.removeprefix('explained_')} {value:.3f}" for key, value in explained.items()]
    words.append(f"{numbers['electrons'] or 0:.3g} e  {numbers['instrument_time_s'] or 0:.1f} s")
    return "  ".join(words)
