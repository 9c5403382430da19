"""What a specimen got before an experiment begins: the books of those that named the same piece, kept again.

Neighbours: `beam_debts` keeps those of an experiment's own earlier processes, `assembly` hands this to its guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instruments import GuardedMicroscope
from instruments.book_entries import ExtraDebit
from instruments.dose_file import SpecimenDose
from instruments.dose_ledger import DoseLedger
from orchestrator.catalogue import Catalogue
from orchestrator.events import EXTRA_DEBIT
from orchestrator.spec import ExperimentSpec
from workflows.assembly import Parts


def earlier_dose(catalogue: Catalogue, parts: Parts, own: str | None = None) -> DoseLedger | None:
    """What all other experiments of this data folder with the same `specimen.id` and instrument put on the specimen.

    None where the spec names no specimen. Frames that no answer came for cost the worst case, as on a resume; `own`
    is the experiment's id, where it has one.
    """
    if parts.spec.specimen.id is None:
        return None
    books = GuardedMicroscope(parts.microscope, parts.envelope, DoseLedger())
    for row in catalogue.experiments(include_children=True):
        if row.id != own and _is_of(row.spec, parts.spec):
            _book(books, catalogue, row.id)
    return books.ledger


def summed(specimen: str, ledger: DoseLedger) -> SpecimenDose:
    """The same for the journal."""
    return SpecimenDose(specimen=specimen, electrons=ledger.electrons, dose_max_e_per_a2=ledger.max_e_per_a2)


def _is_of(document: Mapping[str, Any], spec: ExperimentSpec) -> bool:
    """Whether that experiment was made on this one's specimen; journals of old may know neither word."""
    specimen, instrument = document.get("specimen") or {}, document.get("instrument") or {}
    return (specimen.get("id"), instrument.get("name")) == (spec.specimen.id, spec.instrument.name)


def _book(books: GuardedMicroscope, catalogue: Catalogue, experiment_id: str) -> None:
    stored = {frame.id: frame.electrons for frame in catalogue.frames(experiment_id)}
    for intent in catalogue.intents(experiment_id):
        if intent.stage != "refused":
            books.recharge(intent.command, stored.get(intent.frame_id))
    for event in catalogue.events(experiment_id, kinds=(EXTRA_DEBIT,)):
        books.book_again(ExtraDebit.model_validate(event.payload))
