"""A run in the catalogue of a data folder, looked at from a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruments import Frame, cards
from orchestrator.catalogue import Catalogue, StoredFrame
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec, PolicyChoice
from workflows.documents import experiment_document, headline
from workflows.notebook.candidate import Candidate
from workflows.notebook.table import Table
from workflows.notebook.trial import Narration, Narrator

if TYPE_CHECKING:
    from workflows.session import Session


@dataclass(frozen=True, slots=True)
class Recorded:
    """One experiment by its id; every answer is read from the data folder when it is asked for."""

    settings: Settings
    id: str

    def document(self) -> dict[str, Any]:
        """Everything, as `stempilot show --json` prints it."""
        with self._reading() as catalogue:
            return experiment_document(catalogue, self.id)

    def decisions(self) -> Table:
        """Every decision in a line."""
        rows = tuple(
            {
                "": decision["seq"],
                "purpose": decision["point"].get("purpose", "frame"),
                "x_nm": decision["point"].get("x_nm"),
                "y_nm": decision["point"].get("y_nm"),
                "status": decision["status"],
                "why": decision["reason"].get("why", ""),
                "score": decision["score"],
            }
            for decision in self.document()["decisions"]
        )
        return Table(f"Decisions of {self.id}", rows)

    def frames(self) -> list[StoredFrame]:
        """The stored frames, in order: where, how, at what dose, in which file."""
        with self._reading() as catalogue:
            return catalogue.frames(self.id)

    def load(self, frame: StoredFrame) -> Frame:
        """A frame as the microscope delivered it."""
        with self._reading() as catalogue:
            return catalogue.load_frame(frame.id)

    def path(self, frame: StoredFrame) -> Path:
        """The NeXus file of a frame; HyperSpy and plain h5py open it."""
        return self.settings.data_folder / frame.path

    def report(self) -> Path:
        """Write the report, one HTML file that needs no network; its path."""
        from workflows.reporting import write_report

        with self._reading() as catalogue:
            return write_report(catalogue, self.settings, self.id)

    def __str__(self) -> str:
        return "\n".join(headline(self.document()))

    def _repr_html_(self) -> str:
        lines = headline(self.document())
        return cards.card(f"Experiment {self.id}", "recorded", *(cards.note(line) for line in lines))

    def _reading(self) -> Catalogue:
        return Catalogue.open(self.settings.data_folder, url=self.settings.database_url, read_only=True)


def run_recorded(
    spec: ExperimentSpec, settings: Settings, chosen: Candidate, seed: int, say: Narrator | None, *, baselines: bool
) -> Recorded:
    """Run it through the same session as `stempilot run`, with the local engine."""
    from workflows.session import RunOptions, Session

    policy = PolicyChoice(name=chosen.name, options=dict(chosen.options_for(seed)))
    spec = spec.model_copy(update={"policy": policy})
    heard = say or _silent
    with Catalogue.open(settings.data_folder, url=settings.database_url) as catalogue:
        session: Session = Session(
            catalogue, settings, Narration(heard), heard, policy_of=lambda parts, name, options: chosen.made(parts)
        )
        experiment_id = session.start(spec, RunOptions(seed=seed, engine="local", baselines=baselines))
    return Recorded(settings, experiment_id)


def _silent(text: str) -> None:
    del text
