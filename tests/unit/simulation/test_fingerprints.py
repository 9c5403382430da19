"""Fingerprints: what is simulated for them, and how they are kept."""

import json

import numpy as np
import pytest
from ase import Atoms

from instruments.optics import Coherence, Optics
from simulation import AnnularDetector, GridScan, PixelatedDetector, SegmentedDetector, Simulator
from simulation.errors import InvalidParameter, UnreadableLibrary
from simulation.fingerprints import (
    Candidate,
    FingerprintLibrary,
    ImageFingerprint,
    LibrarySettings,
    PatternFingerprint,
    SpectrumFingerprint,
)
from simulation.fingerprints.average_patterns import rebinned

A_NM = 0.39
SCAN = GridScan(0.0, 0.0, 2 * A_NM, A_NM, (2, 4))
OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=15)
IMAGES = ImageFingerprint(
    scan=SCAN, detectors={"adf": AnnularDetector(20, 45), "segments": SegmentedDetector(5, 15, segment_count=4)}
)
FLAT = PatternFingerprint(step_mrad=2.0, shape_px=(20, 20))
SHARED = {"optics": OPTICS, "sampling_nm": 0.02}


def unit(symbols="TiSr"):
    return Atoms(symbols, [(0.4, 0.5, 1.0), (2.2, 2.4, 2.9)], cell=[3.9] * 3, pbc=True)


def defective():
    atoms = unit() * (2, 1, 1)
    atoms.numbers[0] = 40
    return atoms


def library(folder, **settings):
    return FingerprintLibrary.open(folder, LibrarySettings(**(SHARED | settings)))


def thin(stack_atoms, periods):
    return stack_atoms * (1, 1, periods)


@pytest.mark.parametrize("atoms", [unit() * (2, 1, 1), defective()], ids=["crystal", "defect"])
def test_images_of_every_thickness_are_those_of_a_simulator_for_it(tmp_path, atoms):
    coherence = Coherence(source_size_nm=0.1, focal_spread_nm=3)
    made = library(tmp_path, images=IMAGES, coherence=coherence, tilts_mrad=((3.0, -2.0),), defoci_nm=(5.0,))
    made.build([Candidate("it", atoms, (0.39, 0.78))])
    assert [entry.label.thickness_nm for entry in made.entries] == [0.39, 0.78]
    for periods, entry in enumerate(made.entries, start=1):
        simulator = Simulator(thin(atoms, periods), method="multislice", sampling_nm=0.02, slice_thickness_nm=0.195)
        images = simulator.image(
            OPTICS.model_copy(update={"defocus_nm": 5.0}),
            SCAN,
            dict(IMAGES.detectors),
            coherence=coherence,
            specimen_tilt_mrad=(3.0, -2.0),
        )
        for name in IMAGES.detectors:
            assert entry.arrays[f"image.{name}"] == pytest.approx(images[name].values, rel=2e-5)
        assert entry.has_periodic_field == (True, True)


@pytest.mark.parametrize("atoms", [unit() * (2, 1, 1), defective()], ids=["crystal", "defect"])
def test_patterns_at_points_are_those_of_a_simulator(tmp_path, atoms):
    points = ((0.1, 0.2), (0.3, 0.05))
    made = library(tmp_path, pattern=FLAT.model_copy(update={"points_nm": points}))
    made.build([Candidate("it", atoms, (0.39, 0.78))])
    simulator = Simulator(thin(atoms, 2), method="multislice", sampling_nm=0.02, slice_thickness_nm=0.195)
    seen = simulator.diffraction(OPTICS, points, max_angle_mrad=30)
    axes = seen["detector_y"].values, seen["detector_x"].values
    expected = rebinned(seen.values.astype(float), *axes, 2.0, (20, 20))
    assert made.entries[1].arrays["pattern"] == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("atoms", [unit(), defective()], ids=["crystal", "defect"])
def test_averaged_pattern_is_the_mean_over_a_fine_scan_of_a_large_cell(tmp_path, atoms):
    made = library(tmp_path, pattern=FLAT, tilts_mrad=((4.0, 0.0),))
    made.build([Candidate("it", atoms, (0.39, 0.78))])
    wavelength_over_a = 25.08 / 3.9
    repeats = int(np.ceil(wavelength_over_a / 2.0))
    width = atoms.cell[0, 0] / 10
    shape = (6, 6 if width < 0.5 else 12)  # finer than half the period of the finest wave in the aperture's overlaps
    across = repeats if width < 0.5 else repeats // 2
    simulator = Simulator(atoms * (across, repeats, 2), method="prism", sampling_nm=0.02, slice_thickness_nm=0.195)
    camera = {"seen": PixelatedDetector(max_angle_mrad=30)}
    seen = simulator.image(OPTICS, GridScan(0, 0, width, A_NM, shape), camera, specimen_tilt_mrad=(4.0, 0.0))["seen"]
    axes = seen["detector_y"].values, seen["detector_x"].values
    expected = rebinned(seen.values.astype(float).mean(axis=(0, 1)), *axes, 2.0, (20, 20))
    found = made.entries[1].arrays["pattern"]
    assert np.sqrt(np.mean((found - expected) ** 2)) < 1e-5 * expected.std()


def test_rebinning_keeps_electrons_and_evenness():
    axis = (np.arange(61) - 30) * 0.7
    pattern = np.where(np.hypot(*np.meshgrid(axis, axis)) < 9, np.random.default_rng(3).random((61, 61)), 0)
    assert rebinned(pattern, axis, axis, 1.1, (31, 31)).sum() == pytest.approx(pattern.sum())
    even = rebinned(np.ones((61, 61)), axis, axis, 1.1, (31, 31))
    assert even == pytest.approx(np.full((31, 31), (1.1 / 0.7) ** 2))


def test_spectrum_counts_the_atoms_above_each_cut(tmp_path):
    spectrum = SpectrumFingerprint(
        edges=("Ti L", "O K"), first_loss_ev=400, step_ev=2, channel_count=100, collection_semi_angle_mrad=30
    )
    made = library(tmp_path, spectrum=spectrum)
    made.build([Candidate("SrTi", unit(), (0.39, 0.78)), Candidate("SrO", unit("OSr"), (0.39,))])
    _, first, second = (entry.arrays["spectrum"] for entry in made.entries)
    assert second == pytest.approx(2 * first)
    assert first[:25].sum() == 0
    assert first[40:].min() > 0
    smeared = library(tmp_path / "plural", spectrum=spectrum.model_copy(update={"mean_free_path_nm": 0.78}))
    smeared.build([Candidate("SrTi", unit(), (0.78,))])
    plural = smeared.entries[0].arrays["spectrum"]
    onset = slice(27, 32)  # before the first plasmon replica
    assert plural[onset].sum() / second[onset].sum() == pytest.approx(np.exp(-1), rel=0.05)


def test_what_is_there_is_not_computed_again_and_axes_may_grow(tmp_path):
    candidate = Candidate("SrTi", unit(), (0.39, 0.78))
    made = library(tmp_path, pattern=FLAT)
    assert made.build([candidate]).computed_count == 2
    grown = library(tmp_path, pattern=FLAT, tilts_mrad=((0.0, 0.0), (2.0, 0.0)))
    report = grown.build([candidate, Candidate("ZrSr", unit("ZrSr"), (0.39,))])
    assert (report.computed_count, report.reused_count) == (4, 2)
    found = FingerprintLibrary.open(tmp_path)
    assert found.settings == grown.settings
    assert found.arrays()["structure"].tolist() == ["SrTi"] * 4 + ["ZrSr"] * 2
    assert found.arrays()["pattern"].shape == (6, 20, 20)
    assert np.array_equal(found.entries[0].arrays["pattern"], made.entries[0].arrays["pattern"])


def test_interrupted_build_goes_on_where_it_stopped(tmp_path):
    candidate = Candidate("SrTi", unit(), (0.39, 0.78, 1.17))
    seen = []

    def interrupt(entry):
        seen.append(entry)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library(tmp_path, pattern=FLAT).build([candidate], on_entry=interrupt)
    report = library(tmp_path, pattern=FLAT).build([candidate])
    assert (report.computed_count, report.reused_count) == (1, 2)


def test_damaged_newer_and_foreign_libraries_are_refused(tmp_path):
    made = library(tmp_path, pattern=FLAT)
    made.build([Candidate("SrTi", unit(), (0.39,))])
    path = next(tmp_path.glob("entry-*.npz"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableLibrary, match=r"entry-.*is damaged.*delete it"):
        FingerprintLibrary.open(tmp_path)
    with np.load(path_with(tmp_path, whole)) as archive:
        description, pattern = archive["description"], archive["pattern"]
    np.savez(path, description=description, pattern=pattern * 1.001)
    with pytest.raises(UnreadableLibrary, match="not those that were written"):
        FingerprintLibrary.open(tmp_path)
    newer = json.loads(description.tobytes()) | {"format_version": 99}
    np.savez(path, description=np.frombuffer(json.dumps(newer).encode(), np.uint8), pattern=pattern)
    with pytest.raises(UnreadableLibrary, match=r"version 99.*update stempilot"):
        FingerprintLibrary.open(tmp_path)
    path.write_bytes(whole)
    header = tmp_path / "library.json"
    text = header.read_text()
    header.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(UnreadableLibrary, match="newer than 1"):
        FingerprintLibrary.open(tmp_path)
    for torn in (text[:100], "[]", "7"):
        header.write_text(torn)
        with pytest.raises(UnreadableLibrary, match="cannot be read"):
            FingerprintLibrary.open(tmp_path)
    header.write_text(text)
    assert len(FingerprintLibrary.open(tmp_path).entries) == 1
    with pytest.raises(InvalidParameter, match=r"other settings \(sampling_nm\)"):
        library(tmp_path, pattern=FLAT, sampling_nm=0.019)
    with pytest.raises(InvalidParameter, match="another structure named 'SrTi'"):
        FingerprintLibrary.open(tmp_path).build([Candidate("SrTi", unit("ZrSr"), (0.39,))])


def test_one_name_is_of_one_structure(tmp_path, monkeypatch):
    """At other thicknesses, in one call, in a grown library, after a new version, and from elsewhere."""
    strontium, zirconium = (Candidate("it", unit(f"Ti{metal}"), (0.39,)) for metal in ("Sr", "Zr"))
    made = library(tmp_path / "a", pattern=FLAT)
    with pytest.raises(InvalidParameter, match="another structure named 'it', of other atoms"):
        made.build([strontium, Candidate("it", zirconium.atoms, (0.78,))])
    assert made.entries == ()
    assert made.build([strontium]).computed_count == 1
    with monkeypatch.context() as patch:
        patch.setattr("simulation.fingerprints.storage.ALGORITHM_VERSION", 99)
        patch.setattr("simulation.fingerprints.library.ALGORITHM_VERSION", 99)
        with pytest.raises(InvalidParameter, match="another structure named 'it'"):
            FingerprintLibrary.open(tmp_path / "a").build([Candidate("it", zirconium.atoms, (0.39, 0.78))])
    grown = FingerprintLibrary.open(tmp_path / "a")
    assert grown.build([Candidate("it", strontium.atoms, (0.39, 0.78))]).computed_count == 1
    library(tmp_path / "b", pattern=FLAT).build([zirconium])
    (foreign,) = (tmp_path / "b").glob("entry-*.npz")
    foreign.rename(tmp_path / "a" / foreign.name)
    with pytest.raises(UnreadableLibrary, match=r"two structures named 'it': entry-.* and entry-.*another name"):
        FingerprintLibrary.open(tmp_path / "a")


def path_with(folder, content):
    path = folder / "copy.npz"
    path.write_bytes(content)
    return path


def test_without_defoci_the_focus_is_that_of_the_optics():
    optics = OPTICS.model_copy(update={"defocus_nm": 8.0})
    assert LibrarySettings(optics=optics, pattern=FLAT).defoci_nm == (8.0,)
    assert LibrarySettings(optics=optics, pattern=FLAT, defoci_nm=(0.0, 5.0)).defoci_nm == (0.0, 5.0)


def test_settings_and_candidates_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(UnreadableLibrary, match="no library"):
        FingerprintLibrary.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidParameter, match="file is a file; a library is a folder"):
        FingerprintLibrary.open(tmp_path / "file")
    with pytest.raises(ValueError, match="images, a pattern or a spectrum"):
        LibrarySettings(optics=OPTICS)
    with pytest.raises(InvalidParameter, match="thickness -1"):
        Candidate("SrTi", unit(), (-1.0,))
    with pytest.raises(InvalidParameter, match="same slice"):
        library(tmp_path / "same", pattern=FLAT).build([Candidate("SrTi", unit(), (0.39, 0.40))])
    far = PatternFingerprint(step_mrad=10, shape_px=(64, 64))
    with pytest.raises(InvalidParameter, match="antialias cutoff"):
        library(tmp_path / "far", pattern=far).build([Candidate("SrTi", unit(), (0.39,))])
    unknown = SpectrumFingerprint(
        edges=("OK",), first_loss_ev=400, step_ev=1, channel_count=10, collection_semi_angle_mrad=30
    )
    with pytest.raises(InvalidParameter, match="element and shell"):
        library(tmp_path / "edge", spectrum=unknown).build([Candidate("SrTi", unit(), (0.39,))])
