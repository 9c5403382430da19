"""What an instrument said it can do, kept in the journal: looking back at an experiment touches no instrument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Never

from instruments import AcquireFrame, Calibration, Capabilities, Command, InstrumentFault, Microscope
from instruments.microscope import CountsDose, Outcome
from instruments.state import MicroscopeState
from orchestrator.catalogue import Catalogue
from orchestrator.events import INSTRUMENT_DESCRIBED, SPECIMEN_DOSE
from orchestrator.plain_json import plain
from workflows.assembly import OpenInstrument, open_here


@dataclass(frozen=True)
class DescribedInstrument:
    """An instrument of which nothing is here but its capabilities; whatever else is asked of it is refused."""

    described: Capabilities

    def capabilities(self) -> Capabilities:
        """Those of the instrument when the experiment ran."""
        return self.described

    def read_state(self) -> MicroscopeState:
        """Refuse. Raises InstrumentFault."""
        self._refuse("read")

    def execute(self, command: Command) -> MicroscopeState:
        """Refuse. Raises InstrumentFault."""
        self._refuse(command.kind)

    def acquire(self, command: AcquireFrame) -> Never:
        """Refuse. Raises InstrumentFault."""
        self._refuse(command.kind)

    def outcome(self, action_id: str) -> Outcome:
        """Refuse. Raises InstrumentFault."""
        self._refuse(f"asked about {action_id}")

    def stop(self) -> None:
        """Nothing runs."""

    def _refuse(self, what: str) -> Never:
        name = self.described.name
        raise InstrumentFault(f"{name} may not be {what} here: its experiment is only looked back at")


def note_instrument(
    catalogue: Catalogue, experiment_id: str, capabilities: Capabilities, calibrations: Iterable[Calibration] = ()
) -> None:
    """Write down what the instrument says of itself, and its calibrations, unless the journal says so already.

    A frame names the calibrations in use by their ids; standard, date, uncertainty and expiry are found here.
    """
    document: dict[str, Any] = {"capabilities": plain(capabilities)}
    if known := [plain(calibration) for calibration in calibrations]:
        document["calibrations"] = known
    if _last_description(catalogue, experiment_id) != document:
        catalogue.append(experiment_id, INSTRUMENT_DESCRIBED, document)


def note_specimen(catalogue: Catalogue, experiment_id: str, microscope: Microscope) -> None:
    """Write down what the specimen got before this, from anybody, where the instrument counts that."""
    if isinstance(microscope, CountsDose):
        catalogue.append(experiment_id, SPECIMEN_DOSE, microscope.specimen_dose().model_dump())


def looking_back(catalogue: Catalogue, experiment_id: str) -> OpenInstrument:
    """Opens the instrument of an experiment as it described itself; one of an older journal is opened in earnest."""
    document = _last_description(catalogue, experiment_id)
    if document is None:
        return open_here

    def open_described(adapter: str, config: Mapping[str, Any]) -> Microscope:
        del adapter, config
        return DescribedInstrument(Capabilities.model_validate(document["capabilities"]))

    return open_described


def _last_description(catalogue: Catalogue, experiment_id: str) -> dict[str, Any] | None:
    found = list(catalogue.events(experiment_id, kinds=(INSTRUMENT_DESCRIBED,)))
    return dict(found[-1].payload) if found else None
