"""Evidence by lattice site over all frames: native species, host, or made by the beam; exact Bayes per site.

Neighbours: `lattice_register` says which site, `discovery` which calls stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy

from orchestrator.features.feature_set import FeatureSet

_ATOMS_AT_RISK = 2.0


@dataclass(slots=True)
class SiteHistory:
    """What was measured at one suspect site, in time order: dose and log-likelihood ratios of each piece."""

    row: int
    before_llr: np.ndarray
    pieces: list[tuple[str, int, float, np.ndarray]] = field(default_factory=list[tuple[str, int, float, np.ndarray]])


@dataclass(frozen=True, slots=True)
class SiteTable:
    """Suspect sites: column, index (n, 2), posterior, dose, birth (action, sub-frame).

    `posterior` (n, 2 + S) is over [host, beam-made, species...].
    """

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
        self._sites = np.zeros((0, 3), dtype=np.int64)
        self._total = np.zeros((0, len(species)))
        self._beam = np.zeros(0)
        self._birth: list[tuple[str, int] | None] = []

    def add(
        self,
        action_id: str,
        column: np.ndarray,
        index: np.ndarray,
        dose_e_per_a2: float,
        features: FeatureSet,
        keep: np.ndarray,
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
                history = SiteHistory(len(self.suspects), self.llr[key].astype(float))
                self.suspects[key] = history
                self._grow(key)
            if suspect_row[row] >= 0:
                parts = np.nan_to_num(arrays["suspect_llr_subframes"][suspect_row[row]].astype(float), nan=0.0)
                for subframe, part in enumerate(parts):
                    history.pieces.append((action_id, subframe, dose_e_per_a2 / len(parts), part))
            else:
                history.pieces.append((action_id, 0, dose_e_per_a2, llr[row].astype(float)))
            self._weigh(key[0], history)
        np.add.at(self.llr, slots, llr[inside])
        np.add.at(self.dose, slots, np.float32(dose_e_per_a2))
        return first

    def _grow(self, key: tuple[int, int, int]) -> None:
        if len(self.suspects) > len(self._sites):
            room = max(256, len(self._sites))
            self._sites = np.concatenate([self._sites, np.zeros((room, 3), dtype=np.int64)])
            self._total = np.concatenate([self._total, np.zeros((room, len(self.species)))])
            self._beam = np.concatenate([self._beam, np.full(room, -np.inf)])
        self._sites[len(self.suspects) - 1] = key
        self._birth.append(None)

    def _known(self, column: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        if not self.suspects:
            return np.zeros(len(column), dtype=bool)
        keys = self._sites[: len(self.suspects)]
        span = np.int64(1 << 20)
        known = (keys[:, 0] * span + keys[:, 1]) * span + keys[:, 2]
        return np.isin((column.astype(np.int64) * span + i) * span + j, known)

    def table(self) -> SiteTable:
        """Posterior of every suspect site."""
        count = len(self.suspects)
        sites = self._sites[:count]
        weight = np.full((count, 2 + len(self.species)), -np.inf)
        weight[:, 0] = 0.0
        weight[:, 1] = self._beam[:count]
        here = self.species_column == sites[:, :1]
        weight[:, 2:] = np.where(here, np.log(self.prior_density) + self._total[:count], -np.inf)
        posterior = np.exp(weight - weight.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        dose = self.dose[sites[:, 0], sites[:, 1], sites[:, 2]].astype(float)
        return SiteTable(sites[:, 0], sites[:, 1:] + np.array(self.window[:2]), posterior, dose, list(self._birth))

    def _weigh(self, column: int, history: SiteHistory) -> None:
        """Renew what does not depend on the prior: the summed ratios, and the weight of a loss under the beam."""
        parts = np.array([part for *_, part in history.pieces]).reshape(-1, len(self.species))
        self._total[history.row] = history.before_llr + parts.sum(axis=0)
        name, cross_section_a2 = self.beam_made
        if name is None or cross_section_a2 <= 0 or self.species_column[self.species.index(name)] != column:
            return
        own = parts[:, self.species.index(name)]
        later = own[::-1].cumsum()[::-1] - own
        doses = np.array([dose for _, _, dose, _ in history.pieces])
        risk = np.log(_ATOMS_AT_RISK * cross_section_a2 * np.maximum(doses, 1e-6))
        # Born at a moment spread evenly over piece k: the piece's own evidence counts from there on.
        weight = risk + later + _log_mean_exp_to(own)
        self._beam[history.row] = scipy.special.logsumexp(weight)
        self._birth[history.row] = history.pieces[int(np.argmax(weight))][:2]


def _log_mean_exp_to(llr: np.ndarray) -> np.ndarray:
    """log of the mean of exp(u * llr) over u from 0 to 1: log((exp(llr) - 1) / llr).

    >>> (_log_mean_exp_to(np.array([0.0, 1.0])).round(4) + 0.0).tolist()
    [0.0, 0.5413]
    """
    size = np.maximum(np.abs(llr), 1e-9)
    return np.maximum(llr, 0.0) + np.log(-np.expm1(-size) / size)
