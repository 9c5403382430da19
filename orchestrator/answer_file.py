"""What an objective says so far, as a file beside the frames, for whoever looks on while the experiment runs.

It follows from the journal and can be thrown away: nothing is decided with it. Its neighbour `dashboard` reads it.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from orchestrator.objectives.objective import Objective
from orchestrator.plain_json import to_text

FILE_NAME: Final = "answer_so_far.npz"
_HEADER = "answer"
_EVERY_S = 1.0
_MOST_OF_THE_TIME = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSoFar:
    """An objective's summary and maps after `frame_count` frames of one run."""

    frame_count: int
    summary: Mapping[str, Any]
    maps: Mapping[str, np.ndarray]


class AnswerKeeper:
    """Writes the answer after frames, at most once a second and for at most a twentieth of the time.

    A listener of the loop. A file that cannot be written is left out: the experiment matters more than who looks on.
    """

    def __init__(self, path: Path, objective: Objective, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._objective = objective
        self._clock = clock
        self._not_before_s = clock()
        self._frame_count = 0

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take notice of a measured frame."""
        if kind != "scored":
            return
        self._frame_count = int(payload["spent"].frames)
        if self._clock() >= self._not_before_s:
            self.keep()

    def keep(self) -> None:
        """Write the answer now."""
        started_s = self._clock()
        answer = AnswerSoFar(
            frame_count=self._frame_count, summary=self._objective.summary(), maps=self._objective.maps()
        )
        try:
            write_answer(self._path, answer)
        except OSError:
            self._not_before_s = self._clock() + 60 * _EVERY_S
            return
        ended_s = self._clock()
        self._not_before_s = ended_s + max(_EVERY_S, (ended_s - started_s) / _MOST_OF_THE_TIME)


def answer_path(data_folder: Path, experiment_id: str) -> Path:
    """Where the answer of an experiment is kept."""
    return data_folder / "experiments" / experiment_id / FILE_NAME


def write_answer(path: Path, answer: AnswerSoFar) -> None:
    """Replace the file in one step: a reader sees the old answer or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = to_text({"frame_count": answer.frame_count, "summary": answer.summary})
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as target:
        arrays = {f"map_{name}": array for name, array in answer.maps.items()}
        np.savez(target, allow_pickle=False, **{_HEADER: np.array(header)}, **arrays)
    temporary.replace(path)


def read_answer(path: Path) -> AnswerSoFar | None:
    """The answer so far, or None where none was kept or the file cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            header = json.loads(str(stored[_HEADER]))
            maps = {name.removeprefix("map_"): stored[name] for name in stored.files if name.startswith("map_")}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return AnswerSoFar(frame_count=header["frame_count"], summary=header["summary"], maps=maps)
