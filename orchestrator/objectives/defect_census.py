"""The census of native point defects: which, where, how many per area, at a stated false discovery rate.

Neighbours: `site_evidence` (Bayes per site), `lattice_register` (drift), `clean_map`, `discovery`, `density`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from instruments.models import Record
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.clean_map import CleanMap
from orchestrator.objectives.density import BlockCounts, density_of
from orchestrator.objectives.discovery import confirmed_at, error_bound
from orchestrator.objectives.lattice_register import LatticeRegister
from orchestrator.objectives.objective import FrameFacts, Score
from orchestrator.objectives.site_evidence import SiteEvidence, SiteTable

BLOCK_NM = 10.0
_CLEAN = 0.5
_UNDECIDED_FROM = 0.02
_LITTLE_AT_STAKE_SITES = 2000


class CensusOptions(Record):
    """Options of the objective `defect_census` in a spec."""

    false_discovery_rate: float = Field(default=0.05, gt=0, lt=0.5)
    prior_density_per_nm2: dict[str, float] = Field(description="species -> guess; learned from the data as they come")
    prior_weight_sites: float = Field(default=20_000.0, gt=0, description="how many sites the guess is worth")
    determinable: tuple[str, ...] = Field(description="species that count as natives to confirm")
    phonon_count: int = Field(default=12, ge=1, le=200, description="frozen-phonon configurations of the forward model")
    beam_made: str | None = Field(default=None, description="the species the beam makes")
    beam_cross_section_barn: float = Field(default=2.0, ge=0, description="believed, per atom; 1 barn = 1e-8 A2")


@dataclass(frozen=True, slots=True)
class LatticeGeometry:
    """The lattice believed: distinct columns with their places in the primitive cell, sites per nm2 of each."""

    column_names: tuple[str, ...]
    column_fraction: np.ndarray
    sites_per_nm2: float


@dataclass
class DefectCensus:
    """Objective `defect_census`."""

    options: CensusOptions
    species: tuple[str, ...]
    species_column: tuple[str, ...]
    geometry: LatticeGeometry
    bounds_nm: tuple[float, float, float, float]
    register: LatticeRegister = field(default_factory=LatticeRegister)
    frames: int = 0
    first_action_id: str | None = None
    drift_risks: int = 0

    def __post_init__(self) -> None:
        self.map = CleanMap.over(self.bounds_nm)
        self._column = np.array([self.geometry.column_names.index(name) for name in self.species_column])
        self._prior = (
            np.array([self.options.prior_density_per_nm2[name] for name in self.species]) / self.geometry.sites_per_nm2
        )
        self._evidence: SiteEvidence | None = None
        self._seen_sites = np.zeros(len(self.geometry.column_names))

    # --- taking in ---

    def update(self, point: Mapping[str, Any], facts: FrameFacts, features: FeatureSet) -> Score:
        """Take in one frame; the score is the number of natives confirmed so far."""
        del point
        self.frames += 1
        found, found_std, clean_area = 0.0, 1.0, 0.0
        if features.extractor == "survey":
            arrays = features.arrays
            self.map.merge(arrays["clean_map_x_nm"], arrays["clean_map_y_nm"], arrays["clean_map"].astype(float))
        elif "llr" in features.arrays and len(features.arrays["llr"]):
            found, found_std, clean_area = self._take_sites(facts, features)
        return self._score(features, found, found_std, clean_area)

    def _take_sites(self, facts: FrameFacts, features: FeatureSet) -> tuple[float, float, float]:
        arrays = features.arrays
        drift = self._drift_of(facts, arrays)
        column = arrays["site_column"].astype(np.int64)
        index = np.zeros((len(column), 2), dtype=np.int64)
        for number in range(len(self.geometry.column_names)):
            rows = column == number
            offset = self._offset_nm(number)
            index[rows] = self.register.index(arrays["site_x_nm"][rows], arrays["site_y_nm"][rows], drift, offset)
        keep = arrays["site_clean_probability"] > _CLEAN
        evidence = self._evidence or self._start_evidence()
        first = evidence.add(facts.action_id, column, index, facts.dose_e_per_a2, features, keep)
        self._seen_sites += np.bincount(column[first], minlength=len(self._seen_sites))
        self.map.learn(arrays["site_x_nm"] - drift[0], arrays["site_y_nm"] - drift[1], arrays["site_clean_probability"])
        self.map.mark(
            facts.x_nm - drift[0], facts.y_nm - drift[1], facts.width_nm, facts.height_nm, facts.dose_e_per_a2
        )
        clean_area = float(first.sum()) / (self.geometry.sites_per_nm2 * len(self.geometry.column_names))
        table = evidence.table()
        self._learn_prior(table)
        here = np.isin(_keys(table.column, table.index), _keys(column[first], index[first]))
        native = self._native(table)[here]
        return float(native.sum()), float(np.sqrt((native * (1 - native)).sum() + 0.25)), clean_area

    def _drift_of(self, facts: FrameFacts, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The drift of a frame; after a pause too long to be sure of it, the census starts anew or takes the risk.

        It starts anew, with another specimen frame, while hardly anything is at stake; later the likeliest drift is
        taken and the frame is counted in `drift_risks`.
        """
        lattice = (arrays["lattice_origin_nm"], arrays["lattice_basis_nm"], min(facts.width_nm, facts.height_nm))
        drift = self.register.take(facts.exposed_at_s, *lattice)
        if drift is None and self._seen_sites.sum() < _LITTLE_AT_STAKE_SITES:
            self.register, self._evidence, self.first_action_id = LatticeRegister(), None, None
            self._seen_sites[:] = 0
            drift = self.register.take(facts.exposed_at_s, *lattice)
        if drift is None:
            self.drift_risks += 1
            drift = self.register.take(facts.exposed_at_s, *lattice, accept_risk=True)
        if self.first_action_id is None:
            self.first_action_id = facts.action_id
        if drift is None:
            raise ValueError("a frame taken at any risk has a drift")
        return drift

    def _start_evidence(self) -> SiteEvidence:
        basis = self.register.basis_nm
        origin = self.register.origin_nm
        if basis is None or origin is None:
            raise ValueError("the lattice must be known before evidence is kept")
        x_low, x_high, y_low, y_high = self.bounds_nm
        corners = np.array([(x, y) for x in (x_low - 15, x_high + 15) for y in (y_low - 15, y_high + 15)]) - origin
        cycles = np.linalg.solve(basis, corners.T)
        low, high = np.floor(cycles.min(axis=1)).astype(int), np.ceil(cycles.max(axis=1)).astype(int)
        self._evidence = SiteEvidence(
            self.species,
            self._column,
            self._prior,
            (int(low[0]), int(low[1]), int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)),
            len(self.geometry.column_names),
            (self.options.beam_made, self.options.beam_cross_section_barn * 1e-8),
        )
        return self._evidence

    def _offset_nm(self, column: int) -> np.ndarray:
        basis = self.register.basis_nm
        if basis is None:
            raise ValueError("the lattice must be known before columns are placed")
        return basis @ self.geometry.column_fraction[column]

    def _learn_prior(self, table: SiteTable) -> None:
        """Gamma-Poisson: the guess is worth `prior_weight_sites`, every site seen is worth one."""
        guess = (
            np.array([self.options.prior_density_per_nm2[name] for name in self.species]) / self.geometry.sites_per_nm2
        )
        weight = self.options.prior_weight_sites
        counts = table.posterior[:, 2:].sum(axis=0) if len(table.column) else np.zeros(len(self.species))
        learned = (guess * weight + counts) / (weight + self._seen_sites[self._column])
        self._prior = np.maximum(learned, 0.05 * guess)
        if self._evidence is not None:
            self._evidence.prior_density = self._prior

    # --- answers ---

    def _native(self, table: SiteTable) -> np.ndarray:
        """Probability of each suspect to be a determinable native of any species."""
        wanted = [2 + self.species.index(name) for name in self.options.determinable]
        return table.posterior[:, wanted].sum(axis=1)

    def calls(self) -> dict[str, np.ndarray]:
        """Every suspect site: specimen position, best call, its error probability, confirmed or not, dose.

        `call` is an index into [host, beam-made, species...]; `birth` rows are (frame ordinal, sub-frame) as strings.
        """
        if self._evidence is None:
            return _no_calls(len(self.species))
        table = self._evidence.table()
        call = table.posterior.argmax(axis=1)
        error = 1 - table.posterior[np.arange(len(call)), call]
        confirmed = np.zeros(len(call), dtype=bool)
        defects = call >= 2
        confirmed[defects] = confirmed_at(error[defects], self.options.false_discovery_rate)
        made = call == 1
        confirmed[made] = confirmed_at(error[made], self.options.false_discovery_rate)
        position = np.zeros((len(call), 2))
        for number in range(len(self.geometry.column_names)):
            rows = table.column == number
            if rows.any():
                position[rows] = self.register.position_nm(table.index[rows], self._offset_nm(number))
        births = np.array(["" if birth is None else f"{birth[0]}#{birth[1]}" for birth in table.birth], dtype=str)
        return {
            "x_nm": position[:, 0], "y_nm": position[:, 1], "column": table.column, "call": call,
            "error_probability": error, "confirmed": confirmed, "dose_e_per_a2": table.dose_e_per_a2,
            "posterior": table.posterior, "birth": births,
        }  # fmt: skip

    def _score(self, features: FeatureSet, found: float, found_std: float, clean_area: float) -> Score:
        calls = self.calls()
        counted = calls["confirmed"] & (calls["call"] >= 2)
        counted &= np.isin(calls["call"], [2 + self.species.index(name) for name in self.options.determinable])
        sure = 1 - calls["error_probability"][counted]
        value, std = float(sure.sum()), float(np.sqrt((sure * (1 - sure)).sum() + 1e-12))
        outcomes = {"score": (value, std), "found": (found, found_std), "clean_area_nm2": (clean_area, 0.0)}
        for name in ("contrast_ratio", "fitted_defocus_nm", "clean_fraction"):
            feature = features.values.get(name)
            if feature is not None:
                outcomes[name] = (feature.value, feature.std if feature.std is not None else 0.05)
        return Score(
            value=value,
            std=std,
            statement=f"{value:.0f} natives confirmed, {int(self._undecided(calls).sum())} sites undecided",
            outcomes=outcomes,
            arrays=self._for_policy(calls),
        )

    def _undecided(self, calls: dict[str, np.ndarray]) -> np.ndarray:
        posterior = calls["posterior"]
        doubtful = (posterior[:, 2:].sum(axis=1) > _UNDECIDED_FROM) & (posterior[:, 1] < 0.5)
        return doubtful & ~calls["confirmed"]

    def _for_policy(self, calls: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the policy is told; sites are where a command finds them now, the drift of the last frame added."""
        x_drift_nm, y_drift_nm = self.register.drift_nm
        undecided = self._undecided(calls)
        natives = calls["confirmed"] & (calls["call"] >= 2)
        posterior = calls["posterior"][:, [0, *range(2, 2 + len(self.species))]].copy()
        posterior[:, 0] += calls["posterior"][:, 1]
        return {
            "clean_map": self.map.clean, "clean_map_x_nm": self.map.x_nm, "clean_map_y_nm": self.map.y_nm,
            "visited_dose_e_per_a2": self.map.visited_dose_e_per_a2,
            "undecided_x_nm": calls["x_nm"][undecided] + x_drift_nm,
            "undecided_y_nm": calls["y_nm"][undecided] + y_drift_nm,
            "undecided_posterior": posterior[undecided], "undecided_dose_e_per_a2": calls["dose_e_per_a2"][undecided],
            "confirmed_x_nm": calls["x_nm"][natives] + x_drift_nm,
            "confirmed_y_nm": calls["y_nm"][natives] + y_drift_nm,
            "confirmed_species": calls["call"][natives] - 2,
        }  # fmt: skip

    def stop_reason(self) -> str | None:
        """The census itself never ends early; its policy and its budget end it."""
        return None

    def blocks(self, species: str) -> BlockCounts:
        """Posterior counts of one species in 10 nm blocks of the search area."""
        calls = self.calls()
        x_low, x_high, y_low, y_high = self.bounds_nm
        x_edges = np.arange(x_low, x_high + BLOCK_NM / 2, BLOCK_NM)
        y_edges = np.arange(y_low, y_high + BLOCK_NM / 2, BLOCK_NM)
        weight = calls["posterior"][:, 2 + self.species.index(species)]
        count, *_ = np.histogram2d(calls["y_nm"], calls["x_nm"], bins=(y_edges, x_edges), weights=weight)
        spread, *_ = np.histogram2d(
            calls["y_nm"], calls["x_nm"], bins=(y_edges, x_edges), weights=weight * (1 - weight)
        )
        clean = self.map.known
        areas: list[np.ndarray] = []
        cell_y, cell_x = np.meshgrid(self.map.y_nm, self.map.x_nm, indexing="ij")
        for mask in (self.map.visited_dose_e_per_a2 > 0, np.ones_like(clean, dtype=bool)):
            area, *_ = np.histogram2d(
                cell_y.ravel(), cell_x.ravel(), bins=(y_edges, x_edges), weights=(clean * mask).ravel()
            )
            areas.append(area)
        centre_y, centre_x = np.meshgrid(
            (y_edges[1:] + y_edges[:-1]) / 2, (x_edges[1:] + x_edges[:-1]) / 2, indexing="ij"
        )
        return BlockCounts(
            centre_x.ravel(), centre_y.ravel(), count.ravel(), spread.ravel(), areas[0].ravel(), areas[1].ravel()
        )

    def summary(self) -> dict[str, Any]:
        """Counts and densities by species, beam-made apart, undecided, what cannot be determined."""
        calls = self.calls()
        confirmed = calls["confirmed"]
        by_species: dict[str, Any] = {}
        for number, name in enumerate(self.species):
            mine = confirmed & (calls["call"] == 2 + number)
            density = density_of(self.blocks(name))
            by_species[name] = {
                "confirmed": int(mine.sum()),
                "expected": float(calls["posterior"][:, 2 + number].sum()),
                "counts_as_native": name in self.options.determinable,
                **{key: getattr(density, key) for key in density.__slots__},
            }
        return {
            "false_discovery_rate": self.options.false_discovery_rate,
            "confirmed": int((confirmed & (calls["call"] >= 2)).sum()),
            "beam_made": int((confirmed & (calls["call"] == 1)).sum()),
            "undecided": int(self._undecided(calls).sum()),
            "error_bound": error_bound(
                calls["error_probability"][calls["call"] >= 2], self.options.false_discovery_rate
            ),
            "species": by_species,
            "surveyed_clean_area_nm2": self.map.clean_area_nm2,
            "analysed_clean_area_nm2": float(self.map.known[self.map.visited_dose_e_per_a2 > 0].sum()),
            "drift_risks": self.drift_risks,
            "drift_nm": [list(entry[:3]) for entry in self.register.history],
        }

    def maps(self) -> dict[str, np.ndarray]:
        """Clean map, dose map and every call, for the report."""
        calls = self.calls()
        return {
            "clean": self.map.clean, "x_nm": self.map.x_nm, "y_nm": self.map.y_nm,
            "visited_dose_e_per_a2": self.map.visited_dose_e_per_a2,
            **{f"call_{key}": value for key, value in calls.items()},
        }  # fmt: skip


def _keys(column: np.ndarray, index: np.ndarray) -> np.ndarray:
    """One number a site."""
    span = np.int64(1 << 20)
    return (column.astype(np.int64) * span + index[:, 0] + span // 2) * span + index[:, 1] + span // 2


def _no_calls(species_count: int) -> dict[str, np.ndarray]:
    names: Sequence[str] = ("x_nm", "y_nm", "error_probability", "dose_e_per_a2")
    empty: dict[str, np.ndarray] = {name: np.zeros(0) for name in names}
    empty |= {"column": np.zeros(0, dtype=int), "call": np.zeros(0, dtype=int), "confirmed": np.zeros(0, dtype=bool)}
    return empty | {"posterior": np.zeros((0, 2 + species_count)), "birth": np.zeros(0, dtype=str)}
