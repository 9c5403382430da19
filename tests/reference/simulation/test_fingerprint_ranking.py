"""Model selection by counts: laws that hold whatever the fingerprints are."""

import json

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import gamma, nbinom, norm

from instruments import Optics
from simulation import AnnularDetector, GridScan
from simulation.errors import InvalidParameter
from simulation.fingerprints import (
    Entry,
    ImageFingerprint,
    Label,
    LibrarySettings,
    Measured,
    PatternFingerprint,
    SpectrumFingerprint,
)
from simulation.fingerprints.likelihood import Noise, fit_images, fit_spectrum, rotated, turned
from simulation.fingerprints.misfit import misfit_p_value
from simulation.fingerprints.ranking import fit, ranked

SIDE = 12
LOSSES_EV = 400 + 2.0 * np.arange(80)
SETTINGS = LibrarySettings(
    optics=Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=20),
    images=ImageFingerprint(
        scan=GridScan(0, 0, 1.2, 1.2, (SIDE, SIDE)), detectors={"adf": AnnularDetector(50, 100)}
    ),
    pattern=PatternFingerprint(step_mrad=2, shape_px=(16, 16)),
    spectrum=SpectrumFingerprint(
        edges=("O K",), first_loss_ev=400, step_ev=2, channel_count=80, collection_semi_angle_mrad=30
    ),
)  # fmt: skip


def smooth(rng, shape):
    """A positive map of a few long waves."""
    rows, columns = (2 * np.pi * np.arange(count) / count for count in shape)
    waves = [np.cos(i * rows[:, None] + j * columns + rng.uniform(0, 6)) for i in range(3) for j in range(3)]
    return 1 + 0.1 * np.tensordot(rng.normal(size=9), waves, axes=1)


def entry(number, structure, thickness_nm):
    rng = np.random.default_rng(number)
    image = 0.02 * smooth(rng, (SIDE, SIDE))
    pattern = smooth(rng, (16, 16))
    edges = np.where(440 + 10 * number < LOSSES_EV, 1e-4 * (1 + number / 3), 0.0)
    arrays = {"image.adf": image, "pattern": 0.9 * pattern / pattern.sum(), "spectrum": edges}
    return Entry(f"{number}", Label(structure, thickness_nm, 0, 0, 0), arrays, "", 1, (True, True), {})


ENTRIES = (entry(0, "A", 5), entry(1, "A", 6), entry(2, "B", 5), entry(3, "B", 6), entry(4, "C", 5))


def rank(measured, entries=ENTRIES, **options):
    return ranked(entries, SETTINGS, measured, **({"prior": None, "odds": 100.0, "reject_probability": 1e-3} | options))


def draw(rng, number, electrons, *, uncertainty=0.1, shift=(0, 0), turns=0):
    """Counts of all three groups, with scales of their own."""
    arrays = ENTRIES[number].arrays
    scales = rng.gamma(uncertainty**-2, uncertainty**2, 3)
    image = np.roll(turned(arrays["image.adf"], turns), shift, axis=(0, 1))
    background = 3e-4 * electrons * (LOSSES_EV / 400) ** -3
    return Measured(
        images={"adf": rng.poisson(scales[0] * electrons / SIDE**2 * image)},
        electrons_e_per_px=electrons / SIDE**2,
        pattern=rng.poisson(0.01 * scales[1] * electrons * arrays["pattern"]),
        pattern_electrons=0.01 * electrons,
        spectrum=rng.poisson(0.1 * (scales[2] * electrons * arrays["spectrum"] + background)),
        spectrum_electrons=0.1 * electrons,
        dose_uncertainty_fraction=uncertainty,
        max_shift_nm=None,
        image_turns_deg=(0, 90, 180, 270),
    )


def test_probabilities_are_right_as_often_as_they_say():
    rng = np.random.default_rng(7)
    stated, right, p_values = [], [], []
    for electrons in (2e3, 6e3, 2e4):
        for _ in range(24):
            number = int(rng.integers(len(ENTRIES)))
            shift = tuple(rng.integers(SIDE, size=2))
            found = rank(draw(rng, number, electrons, shift=shift, turns=int(rng.integers(4))), odds=1.01)
            stated.append(found.posterior)
            right.append(np.arange(len(ENTRIES)) == number)
            p_values.append(found.misfit_p_value)
    stated, right = np.concatenate(stated), np.concatenate(right)
    assert stated.max() > 0.99
    for low, high in ((0.02, 0.3), (0.3, 0.7), (0.7, 0.98)):
        inside = (stated >= low) & (stated < high)
        expected, variance = stated[inside].sum(), np.sum(stated[inside] * (1 - stated[inside]))
        assert variance > 1.5
        assert abs(right[inside].sum() - expected) < 3 * np.sqrt(variance)
    assert np.mean(np.array(p_values) < 0.05) < 0.12


def test_shift_turn_and_scale_are_found():
    rng = np.random.default_rng(1)
    for turns in range(4):
        measured = draw(rng, 2, 3e6, shift=(3, 5), turns=turns)
        found = fit(ENTRIES[2], SETTINGS, measured)["images"].expected[0][0]
        seen = measured.images["adf"]
        assert np.mean((seen - found) ** 2 / found) == pytest.approx(1, abs=0.4)


def test_one_pixel_shift_limit_leaves_nine_places():
    counts = np.zeros((1, 6, 6))
    counts[0, 1, 1] = 1
    image = np.full((1, 6, 6), 1e-3)
    image[0, 0, 0] = 0.5
    limited = fit_images([counts], [image], 1.0, Noise(0.0), (1, 1), (0,))
    everywhere = fit_images([counts], [image], 1.0, Noise(0.0), (6, 6), (0,))
    total = image.sum()
    assert limited.log_likelihood == pytest.approx(np.log((0.5 + 8e-3) / 9) - total)
    assert everywhere.log_likelihood == pytest.approx(np.log((0.5 + 35e-3) / 36) - total)
    assert np.unravel_index(limited.expected[0].argmax(), (1, 6, 6)) == (0, 1, 1)


def test_unknown_scale_is_averaged_over_exactly():
    counts, image, k = np.array([[[3.0, 1.0]]]), np.array([[[0.2, 0.1]]]), 25.0
    found = fit_images([counts], [image], 10.0, Noise(k**-0.5), (0, 0), (0,)).log_likelihood
    scales = np.linspace(1e-4, 4, 40001)
    means = 10 * scales[:, None] * image.ravel()
    terms = np.exp(np.sum(counts.ravel() * np.log(means) - means, axis=1)) / 6  # 3! 1!
    density = scales ** (k - 1) * np.exp(-k * scales)
    expected = np.trapezoid(terms * density, scales) / np.trapezoid(density, scales)
    assert found == pytest.approx(np.log(expected), abs=1e-6)


def negative_binomial(counts, means, error):
    """Probabilities of counts: Poisson's, with gamma distributed means."""
    k = error**-2
    return nbinom.pmf(counts, k, k / (k + means))


def test_errors_of_the_model_make_counts_negative_binomial():
    rng = np.random.default_rng(4)
    image = 0.01 * smooth(rng, (8, 8))[None]
    counts = rng.poisson(5000 * image).astype(float)
    found = fit_images([counts], [image], 5000.0, Noise(0.0, 0.1), (0, 0), (0,)).log_likelihood
    assert found == pytest.approx(np.sum(np.log(negative_binomial(counts, 5000 * image, 0.1))))
    scales = np.linspace(0.5, 1.6, 801)
    each = [np.sum(np.log(negative_binomial(counts, 5000 * s * image, 0.1))) for s in scales]
    k = 0.2**-2
    expected = np.log(np.trapezoid(np.exp(np.array(each) - max(each)) * gamma.pdf(scales, k, scale=1 / k), scales))
    averaged = fit_images([counts], [image], 5000.0, Noise(0.2, 0.1), (0, 0), (0,))
    assert averaged.log_likelihood == pytest.approx(expected + max(each), abs=0.02)
    assert averaged.fitted_count == pytest.approx(1, abs=0.02)


EVIDENCE = {0.0: (-12, 4.5, -1, 7, 0.4), 2e3: (-5, 3, -1, 7, 0.4), 4e6: (7.42, 7.57, 2.7, 3.3, 0.2)}


@pytest.mark.parametrize("electrons", EVIDENCE)
def test_background_of_a_spectrum_is_averaged_over(electrons):
    """The evidence is that of a grid over height, exponent and scale, for hardly any counts as well."""
    edges, middle = 1e-4 * (LOSSES_EV > 480), np.exp(np.mean(np.log(LOSSES_EV)))
    law = electrons * 7.5e-4 * (LOSSES_EV / 400) ** -3
    counts = np.random.default_rng(6).poisson(law + electrons * edges).astype(float)
    found = fit_spectrum(counts, edges, LOSSES_EV, 0.97 * electrons, Noise(0.1))
    usual = np.log((counts.sum() + 0.5) / len(counts))
    low, high, least, most, reach = EVIDENCE[electrons]
    axes = np.linspace(low, high, 45), np.linspace(least, most, 33), np.linspace(-reach, reach, 33)
    a, r, t = np.meshgrid(*axes, indexing="ij")
    mean = np.exp(a[..., None] - r[..., None] * np.log(LOSSES_EV / middle))
    mean += 0.97 * electrons * edges * np.exp(t[..., None])
    values = np.sum(counts * np.log(mean) - mean, axis=-1) - np.sum(gammaln(counts + 1))
    values += norm.logpdf(a, usual, 2) + norm.logpdf(r, 3, 1.5) + norm.logpdf(t, 0, 0.1)
    cell = np.sum(np.log([axis[1] - axis[0] for axis in axes]))
    assert found.log_likelihood == pytest.approx(logsumexp(values) + cell, abs=0.03)


def test_an_error_of_the_model_keeps_odds_bounded_and_strangers_out():
    rng = np.random.default_rng(8)
    near = ENTRIES[2].arrays["pattern"] * rng.gamma(400, 1 / 400, (16, 16))  # 5 % off, pixel by pixel
    sent = {"pattern": rng.poisson(1e8 * near), "pattern_electrons": 1e8}
    assert rank(Measured(**sent)).is_none_of_these
    honest = rank(Measured(**sent, model_error_fraction=0.05))
    assert (honest.best, honest.is_none_of_these) == (2, False)
    other = 10 * sent["pattern"]
    longer = rank(Measured(pattern=other, pattern_electrons=1e9, model_error_fraction=0.05))
    assert longer.log_likelihood[2] - longer.log_likelihood[0] == pytest.approx(
        honest.log_likelihood[2] - honest.log_likelihood[0], rel=0.05
    )  # more electrons tell nothing more
    stranger = Measured(pattern=rng.poisson(1e6 * ENTRIES[4].arrays["pattern"]), pattern_electrons=1e6)
    assert rank(stranger, ENTRIES[:4]).is_none_of_these


def test_turns_and_rotations_go_from_x_to_y():
    image = np.zeros((5, 5))
    image[0, 1] = 1  # on +x
    assert turned(image, 1)[1, 0] == 1  # on +y
    assert np.array_equal(turned(turned(image, 1), 3), image)
    pattern = np.zeros((9, 9))
    pattern[4, 7] = 2
    assert rotated(pattern, 90)[7, 4] == pytest.approx(2)
    assert rotated(pattern, 30).sum() == pytest.approx(2)


def test_a_structure_outside_the_library_is_none_of_these():
    rng = np.random.default_rng(5)
    measured = draw(rng, 4, 3e6)
    assert rank(measured, ENTRIES[:4]).is_none_of_these
    known = rank(measured)
    assert (known.best, known.is_none_of_these) == (4, False)
    assert known.marginal("structure")["C"] == pytest.approx(1)
    assert sum(known.marginal("thickness_nm").values()) == pytest.approx(1)


def test_electrons_still_needed_bring_the_odds_asked_for():
    rng = np.random.default_rng(9)
    two = (ENTRIES[0], ENTRIES[2])
    short = Measured(pattern=rng.poisson(300 * two[0].arrays["pattern"]), pattern_electrons=300)
    found = rank(short, two, odds=1e4)
    if found.best == 1:
        two = two[::-1]
    assert 0 < found.more_electrons < 1e6
    gained = []
    for _ in range(200):
        more = rng.poisson(found.more_electrons * two[0].arrays["pattern"])
        total = Measured(pattern=short.pattern + more, pattern_electrons=300 + found.more_electrons)
        first, second = (fit(each, SETTINGS, total)["pattern"].log_likelihood for each in two)
        gained.append(first - second)
    assert np.mean(gained) == pytest.approx(np.log(1e4), abs=4 * np.std(gained) / np.sqrt(200) + 0.2)
    assert rank(total, two, odds=2.0).more_electrons == 0
    twins = (ENTRIES[0], Entry("twin", Label("T", 5, 0, 0, 0), ENTRIES[0].arrays, "", 1, (True, True), {}))
    assert rank(short, twins).more_electrons == float("inf")


def test_misfit_p_values_are_even_and_small_where_they_should_be():
    rng = np.random.default_rng(11)
    for mean in (0.02, 0.7, 50.0):
        expected = mean * smooth(rng, (32, 32))
        found = [misfit_p_value([rng.poisson(expected).astype(float)], [expected], 0) for _ in range(200)]
        assert np.mean(np.array(found) < 0.05) < 0.11
    wave = 1 + 0.1 * np.cos(2 * np.pi * np.arange(32) / 32)
    seen = rng.poisson(50 * np.ones((32, 32)) * wave).astype(float)
    assert misfit_p_value([seen], [np.full((32, 32), 50.0)], 0) < 1e-6


def test_prior_odds_are_respected():
    dark = Measured(pattern=np.zeros((16, 16)), pattern_electrons=1e-6)
    found = rank(dark, prior={"A": 2.0, "B": 1.0, "C": 1.0})
    assert found.posterior == pytest.approx([0.25, 0.25, 0.125, 0.125, 0.25], rel=1e-4)
    assert json.loads(json.dumps(found.as_plain()))["structure"] == ["A", "A", "B", "B", "C"]


BAD = [
    ({}, "nothing measured"),
    ({"pattern": np.ones((16, 16))}, "electrons sent for the pattern are 0"),
    ({"pattern": -np.ones((16, 16)), "pattern_electrons": 1}, "must be counts"),
    ({"pattern": np.full((16, 16), np.nan), "pattern_electrons": 1}, "must be counts"),
    ({"pattern": np.ones((8, 8)), "pattern_electrons": 1}, r"shape \(8, 8\), the library's \(16, 16\)"),
    ({"images": {"bf": np.ones((12, 12))}, "electrons_e_per_px": 1}, "holds no image.bf; it has image.adf"),
    ({"images": {"adf": np.ones((12, 12))}, "electrons_e_per_px": 1, "image_turns_deg": (45,)}, "multiples of 90"),
    ({"pattern": np.ones((16, 16)), "pattern_electrons": 1, "dose_uncertainty_fraction": 2}, "below 1"),
    ({"pattern": np.ones((16, 16)), "pattern_electrons": 1, "model_error_fraction": -1}, "model_error_fraction"),
    ({"images": {"adf": np.ones((12, 12))}, "electrons_e_per_px": 1, "max_shift_nm": -1}, "max_shift_nm"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_cannot_have_been_measured_is_refused(arguments, message):
    with pytest.raises(InvalidParameter, match=message):
        rank(Measured(**arguments))


def test_shifts_need_a_field_of_whole_periods():
    cut = Entry("", ENTRIES[0].label, ENTRIES[0].arrays, "", 1, (True, False), {})
    measured = Measured(images={"adf": np.ones((12, 12))}, electrons_e_per_px=50, max_shift_nm=0.1)
    with pytest.raises(InvalidParameter, match="no period of 'A'"):
        rank(measured, (cut,))
    with pytest.raises(InvalidParameter, match="missing: \\['B', 'C'\\]"):
        rank(measured, prior={"A": 1.0})
    with pytest.raises(InvalidParameter, match="odds = 1"):
        rank(measured, odds=1)
    with pytest.raises(InvalidParameter, match="library is empty"):
        rank(measured, ())
