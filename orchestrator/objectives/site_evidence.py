"""Evidence by lattice site over all frames: native species, host, or made by the beam; exact Bayes per site.

Neighbours: `lattice_register` says which site, `discovery` which calls stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp

from orchestrator.features.feature_set import FeatureSet

SUSPECT_LLR = -1.0
_ATOMS_AT_RISK = 2.0


@dataclass(slots=True)
class SiteHistory:
    """What was measured at one suspect site, in time order: dose and log-likelihood ratios of each piece."""

    before_llr: np.ndarray
    before_dose_e_per_a2: float
    pieces: list[tuple[str, int, float, np.ndarray]] = field(default_factory=list[tuple[str, int, float, np.ndarray]])


@dataclass(frozen=True, slots=True)
class SiteTable:
    """Suspect sites: column, index (n, 2), posterior (n, 2 + S) over [host, beam-made, species...], dose, birth (action, sub-frame)."""

    column: np.ndarray
    index: np.ndarray
    posterior: np.ndarray
    dose_e_per_a2: np.ndarray
    birth: list[tuple[str, int] | None]


class SiteEvidence:
    """Log-likelihood ratios of every site seen, dense over a window of the lattice, with full history for suspects."""

    def __init__(
        self,
        species: tuple[str, ...],
        species_column: np.ndarray,
        prior_density: np.ndarray,
        window: tuple[int, int, int, int],
        column_count: int,
        beam_made: tuple[str | None, float],
    ) -> None:
        """`species_column` (S,) column of each species; `prior_density` (S,) probability per site of that column.

        `window` is (first i, first j, count i, count j) of lattice indices. `beam_made` names the species the beam
        makes and the cross-section per atom, in A2, believed for it (None where damage is not considered).
        """
        self.species = species
        self.species_column = species_column
        self.prior_density = prior_density
        self.window = window
        shape = (column_count, window[2], window[3])
        self.llr = np.zeros((*shape, len(species)), dtype=np.float32)
        self.dose = np.zeros(shape, dtype=np.float32)
        self.suspects: dict[tuple[int, int, int], SiteHistory] = {}
        self.beam_made = beam_made

    def add(
        self, action_id: str, column: np.ndarray, index: np.ndarray, dose_e_per_a2: float, features: FeatureSet, keep: np.ndarray
    ) -> np.ndarray:
        """Take in one frame's sites (only those in `keep`); returns the mask (n,) of sites seen for the first time."""
        arrays = features.arrays
        i, j = index[:, 0] - self.window[0], index[:, 1] - self.window[1]
        inside = keep & (i >= 0) & (j >= 0) & (i < self.window[2]) & (j < self.window[3])
        llr = np.nan_to_num(arrays["llr"], nan=0.0)
        suspect_row = np.full(len(column), -1)
        suspect_row[arrays["suspect"]] = np.arange(len(arrays["suspect"]))
        slots = (column[inside], i[inside], j[inside])
        first = np.zeros(len(column), dtype=bool)
        first[inside] = self.dose[slots] == 0
        flagged = np.nonzero(inside & ((suspect_row >= 0) | self._known(column, i, j)))[0]
        for row in flagged:
            key = (int(column[row]), int(i[row]), int(j[row]))
            history = self.suspects.get(key)
            if history is None:
                history = SiteHistory(self.llr[key].astype(float), float(self.dose[key]))
                self.suspects[key] = history
            if suspect_row[row] >= 0:
                parts = np.nan_to_num(arrays["suspect_llr_subframes"][suspect_row[row]].astype(float), nan=0.0)
                for subframe, part in enumerate(parts):
                    history.pieces.append((action_id, subframe, dose_e_per_a2 / len(parts), part))
            else:
                history.pieces.append((action_id, 0, dose_e_per_a2, llr[row].astype(float)))
        np.add.at(self.llr, slots, llr[inside])
        np.add.at(self.dose, slots, np.float32(dose_e_per_a2))
        return first

    def _known(self, column: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        if not self.suspects:
            return np.zeros(len(column), dtype=bool)
        keys = np.array(list(self.suspects), dtype=np.int64)
        span = np.int64(1 << 20)
        known = (keys[:, 0] * span + keys[:, 1]) * span + keys[:, 2]
        return np.isin((column.astype(np.int64) * span + i) * span + j, known)

    def table(self) -> SiteTable:
        """Posterior of every suspect site."""
        keys = list(self.suspects)
        posterior = np.zeros((len(keys), 2 + len(self.species)))
        births: list[tuple[str, int] | None] = []
        for row, key in enumerate(keys):
            posterior[row], birth = self._posterior(key[0], self.suspects[key])
            births.append(birth)
        array = np.array(keys, dtype=np.int64).reshape(-1, 3)
        dose = np.array([self.dose[key] for key in keys], dtype=float)
        index = array[:, 1:] + np.array(self.window[:2])
        return SiteTable(array[:, 0], index, posterior, dose, births)

    def _posterior(self, column: int, history: SiteHistory) -> tuple[np.ndarray, tuple[str, int] | None]:
        parts = np.array([part for *_, part in history.pieces]).reshape(-1, len(self.species))
        total = history.before_llr + parts.sum(axis=0)
        here = self.species_column == column
        log_weight = np.full(2 + len(self.species), -np.inf)
        log_weight[0] = 0.0
        log_weight[2:][here] = np.log(self.prior_density[here]) + total[here]
        birth: tuple[str, int] | None = None
        name, cross_section_a2 = self.beam_made
        if name is not None and here[self.species.index(name)] and cross_section_a2 > 0:
            after = parts[:, self.species.index(name)][::-1].cumsum()[::-1]
            doses = np.array([dose for _, _, dose, _ in history.pieces])
            risk = np.log(_ATOMS_AT_RISK * cross_section_a2 * np.maximum(doses, 1e-6))
            own = parts[:, self.species.index(name)]
            # Born at a moment spread evenly over piece k: the piece's own evidence counts from there on.
            weight = risk + (after - own) + _log_mean_exp_to(own)
            log_weight[1] = logsumexp(weight)
            best = int(np.argmax(weight))
            birth = history.pieces[best][:2]
        return np.exp(log_weight - logsumexp(log_weight)), birth


def _log_mean_exp_to(llr: np.ndarray) -> np.ndarray:
    """log of the mean of exp(u * llr) over u from 0 to 1: log((exp(llr) - 1) / llr).

    >>> _log_mean_exp_to(np.array([0.0, 1.0])).round(4).tolist()
    [0.0, 0.5413]
    """
    size = np.maximum(np.abs(llr), 1e-9)
    return np.maximum(llr, 0.0) + np.log(-np.expm1(-size) / size)
