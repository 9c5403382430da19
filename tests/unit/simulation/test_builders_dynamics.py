"""Specimens in time: pure functions of seed and time, that only go forwards, with the laws they claim."""

import numpy as np
import pytest
from ase import Atoms

from simulation import InvalidParameter, InvalidSpecimen
from simulation.builders import (
    NucleationAndGrowth,
    ReactionFront,
    ReductionFront,
    amorphous_film,
    crystal,
    monolayer,
    zone_axis,
)
from simulation.builders.limits import close_pairs


@pytest.fixture(scope="module")
def selenisation():
    before = monolayer("MoS2", width_nm=8.0, height_nm=6.0)
    after = before.copy()
    after.symbols[after.symbols == "S"] = "Se"
    return before, after


def test_a_front_moves_at_its_speed(selenisation):
    before, after = selenisation
    front = ReactionFront(before, after, speed_nm_per_s=0.5, start_nm=0.0, roughness_nm=0.4, seed=4)
    late = front.atoms_at(10.0)
    early = front.atoms_at(4.0)
    assert front.atoms_at(10.0).positions.tolist() == late.positions.tolist()  # asked in any order
    selenium = [atoms.positions[atoms.symbols == "Se", 0] / 10 for atoms in (early, late)]
    assert len(selenium[0]) < len(selenium[1])
    difference_nm = (front.transformed_fraction(10) - front.transformed_fraction(4)) * before.cell.lengths()[0] / 10
    assert difference_nm == pytest.approx(0.5 * 6, abs=0.3)
    assert len(late) == len(before)  # one lattice: nothing is lost at the front
    assert front.atoms_at(1000.0).symbols.count("S") == 0


def test_a_rough_front_is_on_the_whole_where_it_is_said_to_be(selenisation):
    """In a cell no wider than the front's own length too; the roughness is an rms over the front."""
    before, after = selenisation
    line = np.column_stack([np.zeros(64), np.linspace(0, before.cell.lengths()[1], 64, endpoint=False), np.zeros(64)])
    fronts = [ReactionFront(before, after, 0.5, start_nm=1.0, roughness_nm=0.4, seed=seed) for seed in range(60)]
    ahead_nm = -1.0 - 0.5 * np.array([front.arrival_s(line) for front in fronts])
    assert np.abs(ahead_nm.mean(axis=1)).max() < 1e-9
    assert np.sqrt(np.mean(ahead_nm**2)) == pytest.approx(0.4, rel=0.15)


def test_where_structures_differ_the_seam_is_clean():
    unit = zone_axis("Au", (0, 0, 1), thickness_nm=1.2, width_nm=3.0, height_nm=3.0)
    width, height, depth = unit.cell.lengths() / 10
    film = amorphous_film(width_nm=width, height_nm=height, thickness_nm=depth, vacuum_nm=0.0, seed=1)
    growth = NucleationAndGrowth(film, unit, nuclei_per_nm2_s=0.05, growth_nm_per_s=0.4, duration_s=6.0, seed=2)
    counts = [growth.atoms_at(t_s).symbols.count("Au") for t_s in (0.0, 2.0, 4.0, 6.0)]
    assert counts[0] == 0
    assert counts == sorted(counts)
    middle = growth.atoms_at(4.0)
    pairs = close_pairs(middle.positions, middle.cell.lengths(), 1.59)
    numbers = middle.numbers[pairs]
    assert not (numbers[:, 0] != numbers[:, 1]).any()


def test_nucleation_and_growth_follow_avrami():
    x, y = np.meshgrid(np.arange(30), np.arange(30))
    before = Atoms("C900", positions=10 * np.column_stack([x.ravel(), y.ravel(), 0 * x.ravel()]), cell=(300, 300, 5))
    after = before.copy()
    rate, speed = 0.01, 0.5
    for t_s in (4.0, 6.0):
        shares = [
            NucleationAndGrowth(before, after, rate, speed, duration_s=t_s, seed=seed).transformed_fraction(t_s)
            for seed in range(12)
        ]
        expected = 1 - np.exp(-np.pi / 3 * rate * speed**2 * t_s**3)
        assert np.mean(shares) == pytest.approx(expected, abs=4 * np.std(shares) / np.sqrt(12))
        assert np.std(shares) < 0.1


def test_reduction_keeps_the_charge_and_never_goes_back():
    oxide = crystal("CeO2") * (6, 3, 3)
    front = ReductionFront(oxide, "Ce", (4, 3), vacancy_fraction=0.2, speed_nm_per_s=0.3, seed=5)
    gone = []
    for t_s in (0.0, 3.0, 6.0, 60.0):
        atoms = front.atoms_at(t_s)
        states = atoms.arrays["oxidation_state"]
        assert states.sum() == 0
        gone.append(oxide.symbols.count("O") - atoms.symbols.count("O"))
        assert (states[atoms.symbols == "Ce"] == 3).sum() == 2 * gone[-1]
        ahead = atoms.positions[:, 0] / 10 > 0.3 * t_s + 1.0
        assert not (atoms.symbols[ahead] == "Ce").any() or (states[ahead & (atoms.symbols == "Ce")] == 4).mean() > 0.9
    assert gone == sorted(gone)
    assert gone[-1] == round(0.2 * oxide.symbols.count("O"))
    perovskite = crystal("SrTiO3") * (3, 3, 3)
    perovskite.set_initial_charges(np.where(perovskite.symbols == "Sr", 2.0, 0.0))
    reduced = ReductionFront(perovskite, "Ti", (4, 3), 0.1, 1.0, seed=1).atoms_at(100.0)
    assert reduced.arrays["oxidation_state"].sum() == 0


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda a, b: ReactionFront(a, b * (2, 1, 1), 1.0),
            InvalidSpecimen,
            "differ; build both structures in one cell",
        ),
        (lambda a, b: ReactionFront(a, b, -1.0), InvalidParameter, "speed_nm_per_s = -1"),
        (lambda a, b: ReactionFront(a, b, 1.0).atoms_at(-1), InvalidParameter, "t_s = -1 s is outside 0"),
        (
            lambda a, b: NucleationAndGrowth(a, b, 1, 1, 5).atoms_at(6),
            InvalidParameter,
            "t_s = 6 s is outside 0 to 5 s",
        ),
        (lambda a, b: ReductionFront(a, "Mo", (4, 3), 0.1, 1.0), InvalidSpecimen, "no Mo or no O"),
        (lambda a, b: ReductionFront(crystal("SrTiO3"), "Ti", (4, 3), 0.1, 1.0), InvalidSpecimen, "is not neutral"),
        (
            lambda a, b: ReductionFront(crystal("CeO2"), "Ce", (4, 3), 0.4, 1.0),
            InvalidParameter,
            r"vacancy_fraction = 0\.4 .* outside 0 to 0\.25",
        ),
    ],
)
def test_what_cannot_happen_is_refused_in_words(selenisation, build, error, message):
    with pytest.raises(error, match=message):
        build(*selenisation)
