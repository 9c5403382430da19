"""A toy of the first world, fast enough for tests: Gaussian log-likelihood ratios instead of images.

Every site carries one number per look, x ~ N(u D, D), u the signal of its species per root dose; u reproduces the doses
for d' = 5.4 of the first world's table (MAADF: V_Se 590, Mo_W 2550, V_Se from O_Se 5300 e/A2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter

from policies import Context, Cost, Observation, Point, Policy, SearchSpace, Suggestion
from policies.fields import dose_of, electrons_of, line_px
from policies.windows import cells_inside

SPECIES = ("V_Se", "O_Se", "V_Se2", "Mo_W")
WANTED = ("V_Se", "V_Se2", "Mo_W")
COLUMN = np.array([0, 0, 0, 1])
DENSITY = np.array([0.006, 0.004, 0.0005, 0.003])
SITES_PER_NM2 = 10.7
SIGNAL = {
    "maadf": np.sqrt(29.16 / np.array([590.0, 1.0, 1.0, 2550.0])),
    "haadf": np.sqrt(29.16 / np.array([3500.0, 1.0, 1.0, 2020.0])),
}
for _mode, _apart in (("maadf", 5300.0), ("haadf", 1e6)):
    SIGNAL[_mode][1] = SIGNAL[_mode][0] - np.sqrt(29.16 / _apart)
    SIGNAL[_mode][2] = 2 * SIGNAL[_mode][0]
BEST_DEFOCUS_NM = 4.0
ERROR = 0.05


def space(size_nm: float) -> SearchSpace:
    half = size_nm / 2
    return SearchSpace.from_dict(
        {
            "purpose": {"choices": ["survey", "focus", "field", "revisit"]},
            "x_nm": {"low": -half, "high": half, "resolution": 0.1},
            "y_nm": {"low": -half, "high": half, "resolution": 0.1},
            "field_of_view_nm": {"low": 2, "high": 100},
            "pixel_size_nm": {"low": 0.02, "high": 0.5},
            "mode": {"choices": ["maadf", "haadf"]},
            "dwell_time_us": {"low": 0.5, "high": 80},
            "probe_current_pa": {"low": 10, "high": 100, "resolution": 1},
            "defocus_nm": {"low": -15, "high": 15, "resolution": 0.5},
        }
    )


def cost(point: Point, previous_point: Point | None) -> Cost:
    pixels = line_px(float(point["field_of_view_nm"]), float(point["pixel_size_nm"]))
    seconds = pixels**2 * float(point["dwell_time_us"]) * 1e-6 + pixels * 20e-6 + 0.05
    if previous_point is not None:
        seconds += 10.0 * (point["mode"] != previous_point["mode"])
        seconds += 20.0 * (point["probe_current_pa"] != previous_point["probe_current_pa"])
    return Cost(electrons_of(point), seconds)


def information(species_a: str, species_b: str | None, mode: str, point: Point) -> float:
    u = SIGNAL[mode]
    other = 0.0 if species_b is None else u[SPECIES.index(species_b)]
    return float((u[SPECIES.index(species_a)] - other) ** 2)


def context(size_nm: float, **changes) -> Context:
    area_a2 = 100 * size_nm**2
    values = {
        "budget": Cost(0.2 * 2700 * area_a2, 600.0 * (size_nm / 200) ** 2 + 60),
        "local_dose_limit_e_per_a2": 1e4,
        "cost": cost,
        "information": information,
        "species": SPECIES,
        "wanted_species": WANTED,
        "prior_density_per_nm2": dict(zip(SPECIES, (0.005, 0.005, 0.0005, 0.003), strict=True)),
        "species_column": dict(zip(SPECIES, ("Se2", "Se2", "Se2", "W"), strict=True)),
        "site_density_per_nm2": {"Se2": SITES_PER_NM2, "W": SITES_PER_NM2},
        "modes": ("maadf", "haadf"),
        "false_discovery_rate": ERROR,
    }
    return Context(**{**values, **changes})


@dataclass
class ToyWorld:
    """Hidden natives in clean windows; answers suggestions as the census objective would."""

    seed: int
    clustering: float
    size_nm: int = 100
    spent: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 1])
        n = self.size_nm
        self.axis = -n / 2 + 0.5 + np.arange(n)
        rough = gaussian_filter(rng.standard_normal((n, n)), 9, mode="wrap")
        self.clean = rough > np.quantile(rough, 0.6)
        smooth = gaussian_filter(rng.standard_normal((n, n)), 20, mode="wrap")
        relief = self.clustering * (smooth - smooth.mean()) / smooth.std()
        density = np.exp(relief - relief.var() / 2) * self.clean
        cells = rng.poisson(density[..., None] * DENSITY)
        rows, columns, kinds = np.nonzero(cells)
        self.x = self.axis[columns] + rng.uniform(-0.5, 0.5, len(rows))
        self.y = self.axis[rows] + rng.uniform(-0.5, 0.5, len(rows))
        self.kind = kinds  # index of the species; -1 marks hosts that looked suspicious
        self.natives = len(rows)
        self.likelihood = np.zeros((self.natives, len(SPECIES)))
        self.seen = np.zeros(self.natives, dtype=bool)
        self.dose = np.zeros((n, n))
        self.clean_map = np.full((n, n), np.nan, dtype=np.float32)
        self.rng = np.random.default_rng([self.seed, 2])

    def expose(self, suggestion: Suggestion) -> Observation:
        point = suggestion.point
        cells = cells_inside(
            self.axis, self.axis, float(point["x_nm"]), float(point["y_nm"]), float(point["field_of_view_nm"])
        )
        outcomes: dict[str, tuple[float, float]] = {"score": (float(self.confirmed.sum()), 0.1)}
        if point["purpose"] == "survey":
            sure = self.clean[cells]
            self.clean_map[cells] = np.where(sure, 0.97, 0.03)
        else:
            contrast = self.contrast(float(point["defocus_nm"]))
            outcomes["contrast_ratio"] = (max(contrast + 0.02 * self.rng.standard_normal(), 0.0), 0.02)
            found, area = self._look(point, cells, contrast)
            outcomes |= {"found": (found, 0.5), "clean_area_nm2": (area, 0.0)}
        self.spent = self.spent + suggestion.cost
        return Observation(
            suggestion_id=suggestion.id, point=point, outcomes=outcomes, arrays=self.arrays(), cost=suggestion.cost
        )

    def contrast(self, defocus_nm: float) -> float:
        drift_nm = self.spent.seconds / 60
        return float(np.exp(-((defocus_nm - BEST_DEFOCUS_NM - drift_nm) ** 2) / (2 * 7.0**2)))

    def _look(self, point: Point, cells, contrast: float) -> tuple[float, float]:
        dose = dose_of(point)
        u = SIGNAL[str(point["mode"])] * contrast
        half = float(point["field_of_view_nm"]) / 2
        inside = (np.abs(self.x - float(point["x_nm"])) <= half) & (np.abs(self.y - float(point["y_nm"])) <= half)
        mean = np.where(self.kind[inside] >= 0, u[np.maximum(self.kind[inside], 0)], 0.0) * dose
        data = mean + np.sqrt(dose) * self.rng.standard_normal(inside.sum())
        self.likelihood[inside] += data[:, None] * u - u**2 * dose / 2
        fresh = self.clean[cells] & (self.dose[cells] == 0)
        area = float(fresh.sum())
        new = inside & ~self.seen
        self.seen |= inside
        self._false_suspects(cells, fresh, u, dose)
        self.dose[cells] += dose
        new = np.append(new, np.ones(len(self.kind) - len(new), dtype=bool))
        found = self.posterior[new][:, 1:][:, np.isin(SPECIES, WANTED)].sum()
        return float(found), area

    def _false_suspects(self, cells, fresh: np.ndarray, u: np.ndarray, dose: float) -> None:
        rows, columns = np.nonzero(fresh)
        for column in (0, 1):
            count = self.rng.poisson(SITES_PER_NM2 * len(rows))
            data = np.sqrt(dose) * self.rng.standard_normal(count)
            likelihood = data[:, None] * u - u**2 * dose / 2
            suspect = (np.exp(likelihood) * DENSITY / SITES_PER_NM2)[:, column == COLUMN].sum(axis=1) > 0.02
            where = self.rng.integers(0, max(len(rows), 1), int(suspect.sum()))
            self.x = np.append(self.x, self.axis[cells[1]][columns[where]])
            self.y = np.append(self.y, self.axis[cells[0]][rows[where]])
            self.kind = np.append(self.kind, np.full(len(where), -1 - column))
            self.likelihood = np.append(self.likelihood, likelihood[suspect], axis=0)
            self.seen = np.append(self.seen, np.ones(len(where), dtype=bool))

    @property
    def column(self) -> np.ndarray:
        return np.where(self.kind >= 0, COLUMN[np.maximum(self.kind, 0)], -1 - self.kind)

    @property
    def posterior(self) -> np.ndarray:
        weight = np.exp(np.minimum(self.likelihood, 500)) * DENSITY / SITES_PER_NM2
        weight[self.column[:, None] != COLUMN[None, :]] = 0.0
        weight = np.concatenate([np.ones((len(weight), 1)), weight], axis=1)
        return weight / weight.sum(axis=1, keepdims=True)

    @property
    def confirmed(self) -> np.ndarray:
        posterior = self.posterior
        return self.seen & (posterior[:, 1:].max(axis=1) > 1 - ERROR)

    def arrays(self) -> dict[str, np.ndarray]:
        posterior, confirmed = self.posterior, self.confirmed
        undecided = self.seen & ~confirmed & (posterior[:, 0] < 0.98)
        return {
            "clean_map": self.clean_map.copy(),
            "clean_map_x_nm": self.axis,
            "clean_map_y_nm": self.axis,
            "visited_dose_e_per_a2": self.dose.astype(np.float32),
            "undecided_x_nm": self.x[undecided],
            "undecided_y_nm": self.y[undecided],
            "undecided_posterior": posterior[undecided],
            "undecided_dose_e_per_a2": np.zeros(int(undecided.sum())),
            "confirmed_x_nm": self.x[confirmed],
            "confirmed_y_nm": self.y[confirmed],
            "confirmed_species": posterior[confirmed][:, 1:].argmax(axis=1),
        }

    def verdict(self) -> tuple[float, float]:
        """(recall of wanted natives, false discovery rate)."""
        called = self.posterior[:, 1:].argmax(axis=1)
        wanted = np.isin(SPECIES, WANTED)
        confirmed = self.confirmed & wanted[called]
        right = confirmed & (called == self.kind)
        native = (self.kind >= 0) & wanted[np.maximum(self.kind, 0)]
        return float(right.sum() / max(native.sum(), 1)), float(1 - right.sum() / max(confirmed.sum(), 1))


def play(policy: Policy, world: ToyWorld, limit: int = 2000) -> list[Suggestion]:
    """Run a policy to its end; the suggestions it made."""
    made: list[Suggestion] = []
    while policy.should_stop() is None and len(made) < limit:
        suggestion = policy.suggest()[0]
        made.append(suggestion)
        policy.ingest([world.expose(suggestion)])
    return made
