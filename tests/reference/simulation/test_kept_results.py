"""Nothing that a Simulator keeps outlives what it was made for: everything changed one by one, against fresh ones."""

from functools import cache

import ase
import numpy as np
import pytest

from instruments.optics import Aberrations, Coherence, Optics
from simulation import (
    AnnularDetector,
    FrozenPhonons,
    GridScan,
    PixelatedDetector,
    PointScan,
    SegmentedDetector,
    Simulator,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::simulation.ProbeOutgrowsCell"),  # by less than a tenth
]

_COEFFICIENTS_NM = {
    "c12": 3.0, "c21": 70.0, "c23": 60.0, "c30": 3e3, "c32": 2e3, "c34": 2.5e3, "c41": 1e5, "c43": 9e4, "c45": 8e4,
    "c50": 4e6, "c52": 4e6, "c54": 3e6, "c56": 4e6,
}  # fmt: skip
ABERRATIONS = {f"{name}_nm": value for name, value in _COEFFICIENTS_NM.items()} | {
    f"phi{name[1:]}_deg": 17.0 + 5 * index for index, name in enumerate(_COEFFICIENTS_NM) if name[2] != "0"
}
OPTICS = Optics(
    beam_energy_ev=100e3, semi_convergence_angle_mrad=24, defocus_nm=2.0, aberrations=Aberrations(**ABERRATIONS)
)
POINTS = PointScan([[0.1, 0.2], [0.33, 0.31], [0.7, 0.55]])
DETECTORS = {"adf": AnnularDetector(34, 48)}
SETTINGS = {"sampling_nm": 0.025, "device": "cpu", "accuracy": 0.5}


def crystal(repeats=2):
    unit = ase.Atoms("WSeO", positions=[(0.5, 1.5, 0.4), (2.5, 1.1, 2.2), (3.1, 3.0, 0.4)], cell=(4.0, 4.3, 4.2))
    unit.pbc = True
    return unit * (repeats, repeats, 2)


def other(**changes):
    return {"optics": OPTICS.model_copy(update=changes)}


CHANGES = {
    "energy": other(beam_energy_ev=120e3),
    "larger angle": other(semi_convergence_angle_mrad=27),
    "smaller angle": other(semi_convergence_angle_mrad=20),
    "beam tilt x": other(tilt_x_mrad=6.0),
    "beam tilt y": other(tilt_y_mrad=-6.0),
    "defocus": other(defocus_nm=-3.0),
    "specimen tilt x": {"specimen_tilt_mrad": (8.0, 0.0)},
    "specimen tilt y": {"specimen_tilt_mrad": (0.0, 9.0)},
    "scan": {"scan": PointScan([[0.12, 0.22], [0.4, 0.31], [0.7, 0.5]])},
    "raster": {"scan": GridScan(0.1, 0.2, 0.3, 0.2, (1, 3))},
    "detector": {"detectors": {"adf": AnnularDetector(30, 45)}},
    "two detectors": {"detectors": {"adf": SegmentedDetector(34, 48), "new": AnnularDetector(29, 40)}},
    "focal spread": {"coherence": Coherence(focal_spread_nm=4.0)},
    "source size": {"scan": GridScan(0.1, 0.2, 0.3, 0.3, (3, 3)), "coherence": Coherence(source_size_nm=0.1)},
} | {
    name: other(aberrations=Aberrations(**(ABERRATIONS | {name: value * (-1.0 if name[0] == "c" else 1) + 40.0})))
    for name, value in ABERRATIONS.items()
}
TRIED = {"incoherent": ("energy", "smaller angle", "specimen tilt x", "defocus", "detector")}
WITHOUT_EFFECT = {"camera length": other(camera_length_mm=90.0), "current": other(probe_current_pa=40.0)}


def simulator(method):
    return Simulator(crystal(), method=method, **SETTINGS)


def signals(simulator, change):
    asked = {"optics": OPTICS, "scan": POINTS, "detectors": DETECTORS} | change
    images = simulator.image(asked.pop("optics"), asked.pop("scan"), asked.pop("detectors"), **asked)
    return np.concatenate([np.asarray(images[name]).ravel() for name in images])


@cache
def fresh(method, change):
    return signals(simulator(method), (CHANGES | {"none": {}})[change])


def same(found, expected):
    return found.shape == expected.shape and np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("method", ["multislice", "prism", "partitioned_prism", "periodic", "incoherent"])
def test_a_simulator_that_has_seen_everything_is_as_good_as_new(method):
    """Exact methods against fresh multislice; there and back for each change."""
    reference = "incoherent" if method == "incoherent" else "multislice"
    unchanged = fresh(reference, "none")
    used = simulator(method)
    assert same(signals(used, {}), unchanged)
    for name in TRIED.get(method, tuple(CHANGES)):
        expected = fresh(reference, name)
        assert not same(unchanged, expected), name
        assert same(signals(used, CHANGES[name]), expected), name
        if name in ("energy", "larger angle", "beam tilt x", "specimen tilt y", "detector", "defocus", "phi56_deg"):
            assert same(signals(used, {}), unchanged), name
    for name, change in WITHOUT_EFFECT.items():
        assert same(signals(used, change), unchanged), name


def test_windows_forget_what_no_longer_holds():
    """A weakly aberrated probe, for windows have to hold it."""
    base = OPTICS.model_copy(update={"aberrations": Aberrations(c12_nm=1, phi12_deg=20)})
    weak = {
        name: change | {"optics": change["optics"].model_copy(update={"aberrations": base.aberrations})}
        for name, change in CHANGES.items()
        if "optics" in change and name not in ABERRATIONS
    }
    weak |= {
        name: {"optics": base} | CHANGES[name] for name in ("specimen tilt x", "scan", "detector", "two detectors")
    }
    weak["astigmatism"] = {"optics": base.model_copy(update={"aberrations": Aberrations(c12_nm=1, phi12_deg=60)})}
    settings = SETTINGS | {"method": "windowed"}
    used = Simulator(crystal(5), **settings)
    unchanged = signals(used, {"optics": base})
    for name, change in weak.items():
        expected = signals(Simulator(crystal(5), **settings), change)
        assert not same(unchanged, expected), name
        assert same(signals(used, change), expected), name
    assert same(signals(used, {"optics": base}), unchanged)


def test_differences_of_a_changed_site_forget_too():
    """A crystal of three by three units, one atom changed: to the last bit what a fresh simulator makes of it."""

    def doped(precision="single"):
        atoms = crystal(3)
        atoms.numbers[0] = 42
        settings = SETTINGS | {"accuracy": 1e-2, "precision": precision}
        return Simulator(atoms, method="local_difference", **settings)

    names = ("energy", "larger angle", "smaller angle", "specimen tilt y", "detector")
    used, unchanged = doped(), signals(doped(), {})
    for name in names:
        expected = signals(doped(), CHANGES[name])
        assert not same(unchanged, expected), name
        np.testing.assert_array_equal(signals(used, CHANGES[name]), expected, name)
    np.testing.assert_array_equal(signals(used, {}), unchanged)
    assert same(signals(doped("double"), {}), unchanged)


def test_patterns_follow_every_change_too():
    used = Simulator(crystal(), method="prism", **SETTINGS)
    pattern = {"adf": PixelatedDetector()}
    for name in ("defocus", "energy", "smaller angle", "beam tilt x", "specimen tilt y"):
        change = CHANGES[name] | {"detectors": pattern}
        assert same(signals(used, change), signals(Simulator(crystal(), method="multislice", **SETTINGS), change)), name


def test_auto_may_choose_otherwise_but_keeps_its_word():
    """What is kept makes another method the cheapest; the image stays within the accuracy asked for."""
    used = Simulator(crystal(), method="auto", **(SETTINGS | {"accuracy": 0.02}))
    for name in ("defocus", "energy", "beam tilt x", "defocus", "larger angle", "source size", "detector"):
        expected = fresh("multislice", name)
        error = np.sqrt(np.mean((signals(used, CHANGES[name]) - expected) ** 2)) / expected.std()
        assert error < 0.02, name


def test_atoms_changed_after_construction_change_nothing():
    atoms, displaced = crystal(), [crystal(), crystal()]
    for each in displaced:
        each.rattle(0.05, rng=np.random.default_rng(len(each)))
    first, again = (
        [Simulator(atoms, method="multislice", phonons=phonons, **SETTINGS) for phonons in (None, displaced)]
        for _ in range(2)
    )
    before = [signals(each, {}) for each in again]
    for each in (atoms, *displaced):
        each.positions += 0.3
        each.numbers[:] = 6
        each.set_cell((9, 9, 9))
    for each, expected in zip(first, before, strict=True):
        np.testing.assert_array_equal(signals(each, {}), expected)


def test_phonons_follow_their_seed():
    made = [
        signals(
            Simulator(crystal(), method="multislice", phonons=FrozenPhonons(1, 0.01, own), seed=seed, **SETTINGS), {}
        )
        for own, seed in ((None, 0), (None, 1), (1, 0))
    ]
    assert not same(made[0], made[1])
    np.testing.assert_array_equal(made[1], made[2])


def test_without_memory_to_keep_anything_images_are_the_same():
    for method in ("multislice", "prism", "periodic"):
        poor = Simulator(crystal(), method=method, **SETTINGS)
        poor._sources._limit_bytes = 0
        for name in ("defocus", "beam tilt x"):
            assert same(signals(poor, CHANGES[name]), fresh("multislice", name)), (method, name)
