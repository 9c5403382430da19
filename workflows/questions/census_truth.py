"""The census against the hidden truth: recall, false discoveries, beam-made apart, ledger against world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from instruments import DoseLedger

MATCH_NM = 0.1


def judge_calls(
    calls: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    species: Sequence[str],
    determinable: Sequence[str],
    first_action_id: str | None,
) -> dict[str, Any]:
    """Recall and false discovery rate of the confirmed calls.

    Positions are brought to the world's frame with the true displacement of the first atomic frame, which
    defines the observer's. A native is found when a confirmed call of its species lies within 0.1 nm of it; a
    confirmed native at a beam-made vacancy, at a native of another species or at nothing is false.
    """
    shift = displacement_nm(truth, first_action_id)
    native = np.stack([truth["native"]["x_nm"], truth["native"]["y_nm"]], axis=1) + shift
    native_species = np.asarray(truth["native"]["species"], dtype=str)
    counted = np.asarray(truth["native"]["clean"], dtype=bool) & np.isin(native_species, list(determinable))
    rows = np.nonzero(calls["confirmed"] & (calls["call"] >= 2))[0]
    position = np.stack([calls["x_nm"][rows], calls["y_nm"][rows]], axis=1)
    called = np.array([species[int(call) - 2] for call in calls["call"][rows]], dtype=str)
    right, which = _match(position, called, native, native_species)
    found = np.zeros(len(native), dtype=bool)
    found[which[right]] = True
    made = _beam_made(calls, truth, shift)
    at_made = _near(position, made["position"])
    wrong = ~right
    return {
        "recall": _ratio(int((found & counted).sum()), int(counted.sum())),
        "false_discovery_rate": _ratio(int(wrong.sum()), len(rows), empty=0.0),
        "confirmed": len(rows),
        "right": int(right.sum()),
        "wrong": int(wrong.sum()),
        "wrong_beam_made_called_native": int((wrong & at_made).sum()),
        "determinable": int(counted.sum()),
        "beam_made_true": len(made["position"]),
        "beam_made_confirmed": made["confirmed"],
        "beam_made_right": made["right"],
        "by_species": {
            name: {
                "determinable": int((counted & (native_species == name)).sum()),
                "native": int((native_species == name).sum()),
                "recall": _ratio(
                    int((found & counted & (native_species == name)).sum()),
                    int((counted & (native_species == name)).sum()),
                ),
                "confirmed": int((called == name).sum()),
                "wrong": int((wrong & (called == name)).sum()),
            }
            for name in species
        },
        "found": found.tolist(),
        "wrong_rows": rows[wrong].tolist(),
    }


def displacement_nm(truth: Mapping[str, Any], action_id: str | None) -> np.ndarray:
    """Nominal minus specimen coordinate (x, y) of an action; zero for one the world does not know.

    The world states specimen minus nominal.
    """
    action = truth["actions"].get(action_id)
    return -np.asarray(action["displacement_nm"] if action else (0.0, 0.0), dtype=float)


def _match(
    position: np.ndarray, called: np.ndarray, native: np.ndarray, native_species: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not len(position) or not len(native):
        return np.zeros(len(position), dtype=bool), np.zeros(len(position), dtype=int)
    distance, which = scipy.spatial.cKDTree(native).query(position)
    which = np.minimum(which, len(native) - 1)
    return (distance <= MATCH_NM) & (native_species[which] == called), which


def _near(position: np.ndarray, others: np.ndarray) -> np.ndarray:
    if not len(position) or not len(others):
        return np.zeros(len(position), dtype=bool)
    return np.asarray(scipy.spatial.cKDTree(others).query(position)[0] <= MATCH_NM)


def _beam_made(calls: Mapping[str, np.ndarray], truth: Mapping[str, Any], shift: np.ndarray) -> dict[str, Any]:
    position = np.stack([truth["beam_made"]["x_nm"], truth["beam_made"]["y_nm"]], axis=1).reshape(-1, 2) + shift
    rows = calls["confirmed"] & (calls["call"] == 1)
    claimed = np.stack([calls["x_nm"][rows], calls["y_nm"][rows]], axis=1)
    return {"position": position, "confirmed": int(rows.sum()), "right": int(_near(claimed, position).sum())}


def _ratio(part: int, whole: int, empty: float | None = None) -> float | None:
    return part / whole if whole else empty


def compare_ledger(ledger: DoseLedger, truth: Mapping[str, Any]) -> dict[str, Any]:
    """The ledger against the world's own dose: totals, and cells where either is above a tenth of the maximum."""
    true_map = np.asarray(truth["dose_map_e_per_a2"], dtype=float)
    rows, columns = true_map.shape
    ours = ledger.mean_map(int(truth["dose_map_x_min_nm"]), int(truth["dose_map_y_min_nm"]), columns, rows)
    true_electrons = float(truth["electrons"])
    busy = np.maximum(ours, true_map) > 0.1 * max(float(true_map.max(initial=0.0)), 1e-9)
    return {
        "ledger_error_fraction": (ledger.electrons - true_electrons) / true_electrons if true_electrons else 0.0,
        "ledger_electrons": ledger.electrons,
        "true_electrons": true_electrons,
        "true_dose_max_e_per_a2": float(true_map.max(initial=0.0)),
        "ledger_dose_max_e_per_a2": ledger.max_e_per_a2,
        "ledger_cell_rms_error_fraction": float(
            np.sqrt(((ours - true_map)[busy] ** 2).mean()) / true_map[busy].mean() if busy.any() else 0.0
        ),
    }
