"""A library of simulated fingerprints in a folder: built once, added to later, and asked what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from simulation.argument_kinds import kinds_checked
from simulation.errors import InvalidParameter, UnreadableLibrary
from simulation.fingerprints.measured import Measured
from simulation.fingerprints.ranking import Ranking, ranked
from simulation.fingerprints.settings import Candidate, LibrarySettings
from simulation.fingerprints.simulated import CandidateSimulation
from simulation.fingerprints.stack import Stack
from simulation.fingerprints.storage import (
    ALGORITHM_VERSION,
    Entry,
    Label,
    entry_key,
    entry_path,
    read_entries,
    read_header,
    structure_key,
    write_entry,
    write_header,
)
from simulation.specimens import Specimen


@dataclass(frozen=True, slots=True)
class BuildReport:
    """How many entries were computed, and how many were there."""

    computed_count: int
    reused_count: int


class FingerprintLibrary:
    """Fingerprints of candidate structures x thickness x tilt x defocus for one set of optics and detectors."""

    def __init__(self, folder: Path, settings: LibrarySettings, entries: Sequence[Entry]) -> None:
        """Use `open` instead."""
        self.folder, self.settings = folder, settings
        self._entries = {entry.key: entry for entry in entries}

    def __repr__(self) -> str:
        """Where it is and how many entries it has."""
        return f"FingerprintLibrary({str(self.folder)!r}, {len(self._entries)} entries)"

    @classmethod
    @kinds_checked
    def open(cls, folder: str | Path, settings: LibrarySettings | None = None) -> Self:
        """The library in a folder, a new one if there is none and settings are given.

        Raises `UnreadableLibrary` for a newer format or a damaged file, `InvalidParameter` for other settings.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InvalidParameter(f"folder = {folder} is a file; a library is a folder: give one, or a new name")
        stored = read_header(folder)
        if stored is None:
            if settings is None:
                raise UnreadableLibrary(f"there is no library in {folder}; give settings to begin one")
            write_header(folder, settings)
            stored = settings
        elif settings is not None and _shared(settings) != _shared(stored):
            raise InvalidParameter(
                f"the library in {folder} was made with other settings ({_differing(settings, stored)}); use another"
                " folder, or open it without settings"
            )
        elif settings is not None and settings != stored:
            write_header(folder, settings)
            stored = settings
        return cls(folder, stored, read_entries(folder))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """By structure, thickness, tilt and defocus."""
        return tuple(sorted(self._entries.values(), key=lambda entry: _order(entry.label)))

    @kinds_checked
    def build(
        self,
        candidates: Sequence[Candidate],
        *,
        device: str = "auto",
        on_entry: Callable[[Entry], None] | None = None,
    ) -> BuildReport:
        """Compute and store what is missing, entry by entry; what is there with the same parameters is kept.

        Killed in between, it loses at most the propagation under way: the thicknesses of one structure and tilt. A name
        is that of one structure: another's atoms under it are refused before anything is computed.
        """
        computed = reused = 0
        for candidate, own_key in zip(candidates, self._structure_keys(candidates), strict=True):
            stack = Stack.of(candidate, self.settings.slice_thickness_nm)
            simulation = CandidateSimulation(stack, self.settings, device)
            for tilt in self.settings.tilts_mrad:
                wanted = self._wanted(candidate, stack, own_key, tilt)
                missing = {index for index, key in wanted.items() if key not in self._entries}
                reused += len(wanted) - len(missing)
                if not missing:
                    continue
                for made in simulation.fingerprints(tilt):
                    index = (made.cut_index, made.defocus_nm)
                    if index not in missing:
                        continue
                    label = self._label(candidate, stack, *index, tilt)
                    key, periodic = wanted[index], simulation.periodic_field()
                    self._add(Entry(key, label, made.arrays, own_key, ALGORITHM_VERSION, periodic, made.notes))
                    computed += 1
                    if on_entry is not None:
                        on_entry(self._entries[key])
        return BuildReport(computed, reused)

    @kinds_checked
    def rank(
        self,
        measured: Measured,
        *,
        prior: Mapping[str, float] | None = None,
        odds: float = 100.0,
        reject_probability: float = 1e-3,
    ) -> Ranking:
        """Which entries explain the counts. `prior`: weight by structure; `reject_probability`: p-value for "none"."""
        return ranked(
            self.entries, self.settings, measured, prior=prior, odds=odds, reject_probability=reject_probability
        )  # fmt: skip

    def arrays(self) -> dict[str, Any]:
        """Plain arrays (entries, ...): each axis, and each signal for one electron of the beam."""
        entries = self.entries
        axes = ("structure", "thickness_nm", "tilt_x_mrad", "tilt_y_mrad", "defocus_nm")
        found: dict[str, Any] = {axis: np.array([getattr(entry.label, axis) for entry in entries]) for axis in axes}
        names = sorted(entries[0].arrays) if entries else []
        return found | {name: np.stack([entry.arrays[name] for entry in entries]) for name in names}

    def _structure_keys(self, candidates: Sequence[Candidate]) -> list[str]:
        """Keys of the structures as given; `InvalidParameter` where a name is of two of them, here or on disk."""
        named = {entry.label.structure: entry.structure_key for entry in self._entries.values() if entry.structure_key}
        keys = [structure_key(Specimen.of(candidate.atoms)) for candidate in candidates]
        for candidate, key in zip(candidates, keys, strict=True):
            if named.setdefault(candidate.name, key) != key:
                raise _another_structure(candidate.name)
        return keys

    def _wanted(
        self, candidate: Candidate, stack: Stack, own_key: str, tilt: tuple[float, float]
    ) -> dict[tuple[int, float], str]:
        """Keys of the entries of one candidate at one tilt, by index of the cut and defocus."""
        wanted: dict[tuple[int, float], str] = {}
        for index in range(len(stack.cuts)):
            specimen_key = structure_key(_specimen(stack, index))
            for defocus_nm in self.settings.defoci_nm:
                label = self._label(candidate, stack, index, defocus_nm, tilt)
                wanted[index, defocus_nm] = entry_key(self.settings, specimen_key, label)
        return wanted

    def _label(
        self, candidate: Candidate, stack: Stack, index: int, defocus_nm: float, tilt: tuple[float, float]
    ) -> Label:
        return Label(candidate.name, round(stack.thicknesses_nm[index], 6), tilt[0], tilt[1], defocus_nm)

    def _add(self, entry: Entry) -> None:
        for other in list(self._entries.values()):
            if other.label != entry.label:
                continue
            if other.algorithm_version == entry.algorithm_version:
                raise _another_structure(entry.label.structure)
            entry_path(self.folder, other.key).unlink(missing_ok=True)
            del self._entries[other.key]
        write_entry(self.folder, entry)
        self._entries[entry.key] = entry


def _another_structure(name: str) -> InvalidParameter:
    return InvalidParameter(
        f"the library holds another structure named {name!r}, of other atoms or another cell; give this one another"
        " name"
    )


def _specimen(stack: Stack, index: int) -> Specimen:
    return Specimen.of(stack.atoms(stack.cuts[index]))


def _order(label: Label) -> tuple[Any, ...]:
    return label.structure, label.thickness_nm, label.tilt_x_mrad, label.tilt_y_mrad, label.defocus_nm


def _shared(settings: LibrarySettings) -> dict[str, Any]:
    """All but the axes, to which may be added."""
    return settings.model_dump(mode="json", exclude={"tilts_mrad", "defoci_nm"})


def _differing(first: LibrarySettings, second: LibrarySettings) -> str:
    ours, theirs = _shared(first), _shared(second)
    return ", ".join(sorted(name for name in ours if ours[name] != theirs[name]))
