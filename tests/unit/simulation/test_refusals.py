"""What cannot be is refused with a message, in signals, counting, damage, detectors and builders alike."""

import pickle

import numpy as np
import pytest
from ase.build import bulk

from instruments import Coherence, Optics
from simulation import (
    AnnularDetector,
    FrozenPhonons,
    GridScan,
    InvalidParameter,
    InvalidSpecimen,
    PixelatedDetector,
    PointScan,
    SegmentedDetector,
    Simulator,
    probe,
    reporting,
    simulate,
)
from simulation import beam_damage as damage
from simulation.builders import Landscape, LandscapeConfig, NucleationAndGrowth, amorphous_film, zone_axis
from simulation.counting import DetectorChain, dose_e_per_a2, raw_counts
from simulation.fingerprints import Candidate, FingerprintLibrary
from simulation.phase_contrast import disc_shift_from_segments, integrate, single_side_band, virtual_image
from simulation.ronchigram import amorphous_phase, ronchigram
from simulation.scattering_factors import electron_scattering_factor
from simulation.specimens import read_structure
from simulation.spectroscopy import (
    DrudePlasmon,
    casnati_k_barn,
    counted_xrays,
    cross_section_barn,
    edge,
    fit_power_law,
    fluorescence_yield,
    ionisation_barn,
    single_scattering,
    thickness_over_mean_free_path,
    with_plural_losses,
)
from simulation.world.cross_sections import displacement_barn, rms_velocity_m_per_s, thermal_displacement_barn

NAN, INF = float("nan"), float("inf")
RNG = np.random.default_rng(0)
OPTICS = Optics(beam_energy_ev=1e5, semi_convergence_angle_mrad=20)
COPPER = edge("Cu", "K")
AXIS = np.arange(5) - 2.0
PATTERNS = np.ones((4, 4, 5, 5))
COUNTED = {"electrons": 1.0, "atoms_per_nm2": 1.0, "solid_angle_sr": 1.0}
GROWTH = {"flux_e_per_nm2_s": 1, "adsorbed_per_nm2": 1, "fixing_cross_section_nm2": 1, "supply_per_s": 1}


ALUMINIUM = bulk("Al", cubic=True)
FILM = {"width_nm": 1, "height_nm": 1, "thickness_nm": 1}


CAMERA = {"4d": PixelatedDetector()}
SLOW, RING = OPTICS.model_copy(update={"beam_energy_ev": 200.0}), {"adf": AnnularDetector(30, 60)}


def _half_occupied():
    atoms = ALUMINIUM.copy()
    atoms.info["occupancy"] = {"0": {"Sr": 0.5, "La": 0.5}}
    return atoms


FEW = GridScan(0, 0, 0.4, 0.4, (2, 2))


def _image(*, atoms=ALUMINIUM, scan=FEW, seen=None, **settings):
    return simulate(atoms, OPTICS, scan, seen or {"adf": AnnularDetector(30, 60)}, **settings)


def _moved(by_angstrom):
    atoms = ALUMINIUM.copy()
    atoms.positions += by_angstrom
    return atoms


REFUSED = {
    "an image that is not finite": (lambda: raw_counts(np.array([NAN]), 10, DetectorChain(), RNG), "not finite"),
    "fewer than no electrons": (lambda: raw_counts(np.array([0.1]), -1, DetectorChain(), RNG), "electrons_e_per_px"),
    "a pixel without area": (lambda: dose_e_per_a2(1.0, (0.0, 0.1)), "pixel_nm"),
    "a camera without limit": (lambda: PixelatedDetector(max_angle_mrad=INF), "max_angle_mrad"),
    "half a segment": (lambda: SegmentedDetector(0, 10, segment_count=2.5), "segment_count = 2.5 must be a whole"),
    "a turned detector": (lambda: SegmentedDetector(0, 10, rotation_deg=NAN), "rotation_deg"),
    "half a configuration": (lambda: FrozenPhonons(1.5, 0.01), "whole number"),
    "an element unknown": (lambda: displacement_barn("Xx", 8e4, 7.0), "unknown element"),
    "a beam without energy": (lambda: thermal_displacement_barn("S", -8e4, 7.0), "beam_energy_ev"),
    "no threshold": (lambda: thermal_displacement_barn("S", 8e4, 0.0), "threshold_ev = 0"),
    "a threshold that is none": (lambda: damage.excitation_assisted_barn("S", 8e4, [7.0, NAN], 1), "thresholds_ev"),
    "no excitations counted": (lambda: damage.excitation_assisted_barn("S", 8e4, [7.0], NAN), "mean_excitation"),
    "zero Debye temperature": (lambda: rms_velocity_m_per_s("S", 0.0), "debye_temperature_k"),
    "a beam too slow to excite": (lambda: damage.excitation_barn(5.0, 1.0, 10.0), "4 times excitation_ev"),
    "a beam too slow to stop": (lambda: damage.stopping_power_ev_per_nm(100, 300, 75), "4 times mean_excitation"),
    "dose below zero": (lambda: damage.intact_fraction(-1.0, 10.0), "dose_e_per_a2"),
    "a rate below zero": (lambda: damage.radiolysis_rate_per_s(-1.0, 10.0), "dose_rate"),
    "energy below zero": (lambda: damage.dose_at_another_energy_e_per_a2(1, -1e5, 1e5), "from_energy_ev"),
    "time unknown": (lambda: damage.contamination_nm(NAN, volume_nm3=1, **GROWTH), "finite"),
    "phases unknown": (lambda: ronchigram(OPTICS, np.full((64, 64), NAN), 0.05), "finite phases"),
    "pixels below zero": (lambda: ronchigram(OPTICS, np.zeros((64, 64)), -0.05), "pixel_nm"),
    "a film of infinite pixels": (
        lambda: amorphous_phase((8, 8), INF, beam_energy_ev=1e5, thickness_nm=1, rng=RNG), "pixel_nm",
    ),
    "a shell without yield": (lambda: fluorescence_yield("U", "M"), "unknown shell 'M'"),
    "an element without yield": (lambda: casnati_k_barn("Xx", 100.0, 1000.0), "chemical symbol"),
    "electrons below zero": (lambda: counted_xrays(COPPER, 2e5, **COUNTED | {"electrons": -1.0}), "electrons = -1"),
    "atoms unknown": (lambda: counted_xrays(COPPER, 2e5, **COUNTED | {"atoms_per_nm2": NAN}), "atoms_per_nm2"),
    "collection below zero": (lambda: DrudePlasmon(15, 1).mean_free_path_nm(1e5, -10), "collection_semi_angle"),
    "convergence below zero": (
        lambda: cross_section_barn(COPPER, 1e5, 10, 50, semi_convergence_angle_mrad=-3), "semi_convergence",
    ),
    "gradients without pixels": (lambda: integrate(np.ones((4, 4)), np.ones((4, 4)), (0.0, 0.1)), "pixel_nm"),
    "bands without pixels": (lambda: single_side_band(PATTERNS, AXIS, AXIS, (NAN, 0.1), OPTICS), "pixel_nm"),
    "angles of unequal steps": (
        lambda: single_side_band(PATTERNS, AXIS * [1, 1, 1, 1, 2], AXIS, (0.1, 0.1), OPTICS), "equal steps",
    ),
    "a virtual detector off the camera": (
        lambda: virtual_image(PATTERNS, AXIS, AXIS, AnnularDetector(50, 90)), "no pixel between 50 and 90",
    ),
    "a share unknown": (
        lambda: amorphous_film({"C": NAN}, width_nm=1, height_nm=1, thickness_nm=1), "share above 0",
    ),
    "a grid of one number": (lambda: _image(grid_shape_px=512), "grid_shape_px = 512 must be two whole"),
    "a grid of half a pixel": (lambda: _image(grid_shape_px=(96.5, 96)), "grid_shape_px"),
    "a grid of three numbers": (lambda: _image(grid_shape_px=(96, 96, 3)), "grid_shape_px"),
    "pixels wider than the cell": (lambda: _image(sampling_nm=9), "sampling_nm = 9 nm is too coarse"),
    "pixels of a femtometre": (lambda: _image(sampling_nm=1e-6), "sampling_nm = 1e-06 nm is too fine"),
    "a seed below zero": (lambda: _image(seed=-1), "seed = -1 must be a whole number"),
    "a word for a seed": (lambda: _image(seed="one"), "seed = 'one'"),
    "phonons of a seed below zero": (lambda: FrozenPhonons(1, 0.01, seed=-1), "seed = -1"),
    "a count for phonons": (lambda: _image(phonons=3), "phonons is a int"),
    "one structure for phonons": (lambda: _image(phonons=bulk("Al", cubic=True)), "phonons is a Atoms"),
    "a length for coherence": (lambda: _image(coherence=0.1), "coherence is a float; give instruments.Coherence"),
    "one angle of a tilted specimen": (lambda: _image(specimen_tilt_mrad=3), "two finite angles"),
    "words for a tilt": (lambda: _image(specimen_tilt_mrad=("a", "b")), "two finite angles"),
    "a scan of one number": (lambda: GridScan(0, 0, 1, 1, 4), "shape_px = 4 must be two whole numbers"),
    "a camera of one number": (lambda: PixelatedDetector(shape_px=64), "shape_px = 64"),
    "a camera of half a pixel": (lambda: PixelatedDetector(shape_px=(8.5, 8)), "shape_px"),
    "words for positions": (lambda: PointScan([["a", "b"]]), "points_nm holds no real numbers"),
    "imaginary positions": (lambda: PointScan(1j * np.ones((2, 2))), "points_nm holds no real numbers"),
    "angstrom for nm": (lambda: FrozenPhonons(2, {"Sr": 0.08}), r"sigmas_nm\['Sr'\] = 0.08 nm is above 0.05 nm"),
    "an array for phonons": (lambda: _image(phonons=np.array(0.02)), "phonons is a ndarray"),
    "a length for a probe's optics": (lambda: probe(0.1, shape_px=(8, 8), sampling_nm=0.02), "optics is a float"),
    "one number for a probe's pixels": (lambda: probe(OPTICS, shape_px=8, sampling_nm=0.02), "shape_px = 8 must be"),
    "a length for the coherence of patterns": (
        lambda: Simulator(bulk("Al", cubic=True)).diffraction(OPTICS, [[0, 0]], coherence=0.1), "coherence is a float",
    ),
    "an overview without rows": (
        lambda: Landscape(LandscapeConfig(seed=1)).overview(0, 0, 10, 10, shape_px=(0, 3)), "shape_px",
    ),
    "losses that do not fit a spectrum": (
        lambda: thickness_over_mean_free_path([0, 1], [1, 2, 3], 0.5), r"shape \(3,\) does not fit losses",
    ),
    "losses that do not fit a background": (
        lambda: fit_power_law([100, 110], [1, 2, 3], (90, 120)), r"shape \(3,\) does not fit losses",
    ),
    "a stage nowhere": (lambda: Landscape(LandscapeConfig(seed=1)).atoms(1e9, 0, 1, 1), "stage position"),
    "atoms before the entrance": (
        lambda: _image(atoms=_moved((0, 0, -3.0))), r"4 atoms lie outside the cell .* z = -3 angstrom.* 0 to 4.05",
    ),
    "atoms beyond the exit": (lambda: _image(atoms=_moved((0, 0, 3.0))), "2 atoms lie outside the cell along the beam"),
    "atoms on top of each other": (
        lambda: _image(atoms=ALUMINIUM + ALUMINIUM), r"4 pairs of atoms are nearer than 0.01 nm.* Al 0 and Al 4",
    ),
    "an interpolation without waves": (
        lambda: _image(method="multislice", interpolation=3), "interpolation = 3 means nothing to method 'multislice'",
    ),
    "a camera for a virtual detector": (
        lambda: virtual_image(PATTERNS, AXIS, AXIS, PixelatedDetector()), "detector is a PixelatedDetector; give an",
    ),
    "patterns in a list": (lambda: virtual_image([1], AXIS, AXIS, AnnularDetector(0, 1)), "patterns = .* an array of"),
    "a number for a landscape": (lambda: Landscape(3), "config is a int; give a LandscapeConfig"),
    "a landscape without seed": (lambda: LandscapeConfig(seed=-1), "seed = -1 must be a whole number, at least 0"),
    "no electrons to take apart": (
        lambda: single_scattering(AXIS, 0 * AXIS, 0 * AXIS, 2.0), "sum to 0 and 0 electrons, .* must be above 0",
    ),
    "no electrons to smear with": (lambda: with_plural_losses(AXIS, AXIS, 0 * AXIS), "low_loss sums to 0; it must"),
    "a word for an energy": (
        lambda: cross_section_barn(COPPER, "much", 10, 50), "beam_energy_ev = 'much' must be a finite number of eV",
    ),
    "a word for an edge": (lambda: cross_section_barn("Cu", 1e5, 10, 50), "edge is a str; give an Edge"),
    "one number for a window": (lambda: fit_power_law(AXIS, AXIS, 5), "window_ev = 5 must be two finite numbers of eV"),
    "a loss that is none": (lambda: fit_power_law([1, NAN], [1, 1], (1, 2)), "loss_ev holds a number that is not"),
    "kilometres": (lambda: zone_axis("Au", (0, 0, 1), thickness_nm=1e30), "thickness_nm = 1e.30 nm is above 1000 nm"),
    "a direction of one number": (lambda: zone_axis("Au", 3, thickness_nm=1), "axis = 3 must be three indices"),
    "a number for a material": (lambda: zone_axis(3, (0, 0, 1), thickness_nm=1), "material is a int; give ase.Atoms"),
    "a landscape of seeds below zero": (lambda: amorphous_film("C", seed=-1, **FILM), "seed = -1 must be a whole"),
    "a number for a file": (lambda: read_structure(3), "path is a int; give a str or a Path"),
    "a word for a thickness": (lambda: Candidate("a", ALUMINIUM, ("much",)), r"thicknesses_nm\[0\] = 'much' must be a"),
    "numbers for candidates": (
        lambda: FingerprintLibrary.build(None, [1, 2]), r"candidates\[0\] is a int; give a Candidate",
    ),
    "half an atom": (lambda: electron_scattering_factor(6.5, 1.0), "symbol_or_number is a float; give a str or an int"),
    "an energy in words": (lambda: Simulator(ALUMINIUM).prepared("much"), "beam_energy_ev = 'much' must be a finite"),
    "patterns that fill no memory": (
        lambda: _image(method="multislice", sampling_nm=0.02, scan=GridScan(0, 0, 1, 1, (10**4, 10**4)), seen=CAMERA),
        r"100000000 probes of \d+ values each take .* GiB may be had; scan fewer pixels",
    ),
    "patterns beyond what is allowed": (
        lambda: _image(memory_gib=0.3, threads=1, sampling_nm=0.02, scan=GridScan(0, 0, 1, 1, (999, 999)), seen=CAMERA),
        "and 0.3 GiB may be had",
    ),
    "a scan that fills no memory": (
        lambda: _image(scan=GridScan(0, 0, 1, 1, (10**6, 10**6))), "1000000000000 probes of 1 values each",
    ),
    "a source in picometres": (
        lambda: _image(coherence=Coherence(source_size_nm=80)), "a source of 80 nm .* too wide .* give a smaller one",
    ),
    "a source that takes billions of probes": (
        lambda: _image(scan=GridScan(0, 0, 1600, 1600, (4000, 4000)), coherence=Coherence(source_size_nm=0.1)),
        "takes .*e[+]0[89] probes, more than 5e[+]07; scan fewer pixels",
    ),
    "copies of optics with anything": (
        lambda: ronchigram(OPTICS.model_copy(update={"defocus_nm": NAN}), np.zeros((64, 64)), 0.05),
        "optics.defocus_nm = nan must be a finite number of nm; .* make a new Optics",
    ),
    "copies of coherence with anything": (
        lambda: _image(coherence=Coherence().model_copy(update={"source_size_nm": -1})),
        "coherence.source_size_nm = -1 must be a number of nm, .* make a new Coherence",
    ),
    "aberrations that are none": (
        lambda: ronchigram(OPTICS.model_copy(update={"aberrations": {"c30_nm": 1}}), np.zeros((64, 64)), 0.05),
        "optics = .* make a new Optics",
    ),
    "a beam beyond any": (lambda: ionisation_barn(COPPER, 1e30), r"beam_energy_ev = 1e\+30 is above 1e\+07 eV"),
    "a beam in kilovolts": (lambda: thermal_displacement_barn("S", 80, 6.9), "80 is below 1000 eV; give it in eV"),
    "an image in kilovolts": (lambda: simulate(ALUMINIUM, SLOW, FEW, RING), "200 is below 1000 eV"),
    "a detector without a name": (lambda: _image(seen={"": AnnularDetector(30, 60)}), "a detector is called ''"),
    "nobody who listens": (lambda: reporting(print).__enter__(), "listener is a builtin_function_or_method; give"),
    "a beam from the side": (
        lambda: simulate(ALUMINIUM, OPTICS.model_copy(update={"tilt_y_mrad": 500.0}), FEW, RING), "beyond 100 mrad",
    ),
    "a dose in kilovolts": (lambda: damage.dose_at_another_energy_e_per_a2(10, 80, 200), "200 is below 1000 eV"),
    "counts for fractions": (
        lambda: single_side_band(PATTERNS.astype(np.uint16), AXIS, AXIS, (0.1, 0.1), OPTICS),
        "patterns add up to 25 at a probe position.*fractions of the beam",
    ),
    "angles in rad": (
        lambda: single_side_band(PATTERNS / 25, AXIS / 1e3, AXIS / 1e3, (0.1, 0.1), OPTICS), "no side .* 0.002 mrad to",
    ),
    "counts of segments for fractions": (
        lambda: disc_shift_from_segments(np.full((3, 1, 4), 50), SegmentedDetector(0, 30), 20), "signals add up to 200",
    ),
    "sites half occupied": (lambda: simulate(_half_occupied(), OPTICS, None, None), r"atoms have .*Sr 0.5 \+ La 0.5"),
    "a forest of nuclei": (
        lambda: NucleationAndGrowth(ALUMINIUM, ALUMINIUM, 1e9, 1, 10).nuclei(), "nuclei in 10 s, more than 100000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    call, message = REFUSED[what]
    with pytest.raises((InvalidParameter, InvalidSpecimen), match=message):
        call()


def test_a_ring_between_the_waves_of_a_small_cell_is_not_an_image_of_zeros():
    atoms = bulk("Al", cubic=True) * (2, 2, 1)
    with pytest.raises(InvalidParameter, match=r"'thin' from 10.1 to 10.2 mrad counts nothing.*steps of 4\.5"):
        simulate(atoms, OPTICS, GridScan(0, 0, 0.4, 0.4, (2, 2)), {"thin": AnnularDetector(10.1, 10.2)})


def test_what_is_missing_is_named_with_what_misses_it():
    with pytest.raises(TypeError, match=r"^amorphous_film\(\): missing a required argument: 'height_nm'"):
        amorphous_film("C", width_nm=1)


NO_NUMBERS = ("abc", "0.02", None, NAN, np.array([0.02]), [0.02], 1 + 2j, (), True)
TAKERS = {
    "sampling_nm": lambda value: _image(sampling_nm=value),
    "slice_thickness_nm": lambda value: _image(slice_thickness_nm=value),
    "accuracy": lambda value: _image(accuracy=value),
    "interpolation": lambda value: _image(interpolation=value),
    "seed": lambda value: _image(seed=value),
    "x_nm": lambda value: GridScan(value, 0, 1, 1, (4, 4)),
    "height_nm": lambda value: GridScan(0, 0, 1, value, (4, 4)),
    "inner_mrad": lambda value: AnnularDetector(value, 50),
    "outer_mrad": lambda value: SegmentedDetector(0, value),
    "segment_count": lambda value: SegmentedDetector(0, 10, segment_count=value),
    "rotation_deg": lambda value: SegmentedDetector(0, 10, rotation_deg=value),
    "count": lambda value: FrozenPhonons(value, 0.01),
    "sigmas_nm": lambda value: FrozenPhonons(1, value),
    r"sigmas_nm\['Sr'\]": lambda value: FrozenPhonons(1, {"Sr": value}),
    "width_nm": lambda value: amorphous_film({"C": 1.0}, width_nm=value, height_nm=1, thickness_nm=1),
}


@pytest.mark.parametrize("name", TAKERS)
def test_what_is_no_number_is_named_with_what_is_wanted(name):
    for value in NO_NUMBERS:
        with pytest.raises(InvalidParameter, match=rf"^{name} = .* must be a (finite |positive |whole )?number"):
            TAKERS[name](value)


def test_numbers_of_numpy_are_numbers():
    """Also in arrays without dimensions; kept as Python's, so that detectors can be compared and kept."""
    ring = AnnularDetector(np.array(10), np.float32(50))
    assert ring == AnnularDetector(10, 50)
    assert hash(ring) == hash(AnnularDetector(10, 50))
    assert GridScan(np.array(0.5), 0, np.int64(1), 1, np.array([4, 4])) == GridScan(0.5, 0, 1, 1, (4, 4))
    assert SegmentedDetector(0, 10, segment_count=np.int64(8)).segment_count == 8
    assert FrozenPhonons(np.int64(2), np.array(0.05)) == FrozenPhonons(2, 0.05)
    points = PointScan(np.array([[1, 2], [0, 3]]))
    assert {points, pickle.loads(pickle.dumps(points))} == {PointScan([(1.0, 2.0), (-0.0, 3.0)])}
    assert points != PointScan([(0, 3), (1, 2)])


@pytest.mark.parametrize("detectors", [AnnularDetector(30, 60), [AnnularDetector(30, 60)], "haadf", None, 3.0])
def test_detectors_need_names(detectors):
    with pytest.raises(InvalidParameter, match=r"detectors is a .*; give each a name"):
        simulate(bulk("Al", cubic=True), OPTICS, GridScan(0, 0, 0.4, 0.4, (2, 2)), detectors)
