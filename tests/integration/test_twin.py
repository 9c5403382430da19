"""The twin as a microscope: its clock, its books, and that it is a pure function of (seed, commands)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instruments
from instruments import (
    AcquireFrame,
    Blank,
    Command,
    CommandRefused,
    ConfigurationError,
    Forecasting,
    HiddenTruth,
    InstrumentFault,
    Microscope,
    Optics,
    Park,
    Rebuildable,
    Releasable,
    RunProcedure,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unblank,
    Unsupported,
)
from instruments.units import electrons
from simulation.microscope import SimulatedMicroscope, open_simulated
from simulation.world.clock import Drift
from simulation.world.config import SimulatedConfig

STRUCTURE = str(Path(__file__).resolve().parents[2] / "examples" / "structures" / "WSe2.extxyz")


@pytest.fixture(scope="module")
def cache(image_cache: Path) -> str:
    """Images of the lattice are computed once for all tests."""
    return str(image_cache)


def twin(cache: str | None = None, **changes: Any) -> SimulatedMicroscope:
    config: dict[str, Any] = {
        "structure": STRUCTURE, "seed": 3, "phonon_count": 1, "cache_folder": cache, "width_nm": 60.0,
        "height_nm": 60.0,
    }  # fmt: skip
    return open_simulated(**(config | changes))


def frame(action_id: str, **changes: Any) -> AcquireFrame:
    scan: dict[str, Any] = {"field_of_view_nm": 4.0, "shape_px": (48, 64), "dwell_time_us": 1.0}
    optics: dict[str, Any] = {
        "beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 31.5, "probe_current_pa": 30.0,
    }  # fmt: skip
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60,
        stage=changes.get("stage", StagePosition()),
        optics=Optics(**(optics | changes.get("optics", {}))),
        scan=ScanPattern(**(scan | changes.get("scan", {}))),
        mode=changes.get("mode", "maadf"),
        subframe_count=changes.get("subframe_count", 2),
    )


def survey(action_id: str, **changes: Any) -> AcquireFrame:
    scan = {"field_of_view_nm": 60.0, "shape_px": (64, 64), "dwell_time_us": 5.0}
    return frame(action_id, **(changes | {"scan": scan | changes.get("scan", {})}))


def session(count: int, mode: str = "maadf") -> list[Command]:
    """Commands that use everything: moves, shifts, currents, parking with the beam on, surveys."""
    rng = np.random.default_rng(0)
    commands: list[Command] = []
    for n in range(count):
        shift = rng.uniform(-25, 25, 2).round(2)
        if n % 9 == 4:
            commands += [Unblank(action_id=f"u{n}"), Park(action_id=f"p{n}", beam_shift_x_nm=shift[0], duration_s=0.01)]
            commands.append(Blank(action_id=f"b{n}"))
        stage = StagePosition(x_nm=20.0 * (n // 7))
        current_pa = (30.0, 60.0)[n % 11 == 10]
        commands.append(
            frame(
                f"f{n}",
                mode=mode,
                stage=stage,
                optics={"probe_current_pa": current_pa, "defocus_nm": float(n % 3)},
                scan={"beam_shift_x_nm": shift[0], "beam_shift_y_nm": shift[1]},
            )
        )
    return commands


def run(microscope: SimulatedMicroscope, commands: list[Command]) -> dict[str, dict[str, np.ndarray]]:
    counts: dict[str, dict[str, np.ndarray]] = {}
    for command in commands:
        if isinstance(command, AcquireFrame):
            counts[command.action_id] = microscope.acquire(command).counts
        else:
            microscope.execute(command)
    return counts


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_it_is_found_by_name_and_fulfils_the_protocols() -> None:
    microscope = instruments.open("simulated", structure=STRUCTURE)
    for protocol in (Microscope, Forecasting, Rebuildable, HiddenTruth):
        assert isinstance(microscope, protocol)
    card = microscope.capabilities()
    assert card.simulated
    assert {mode.name: [d.name for d in mode.detectors] for mode in card.modes} == {
        "maadf": ["maadf", "bf"],
        "haadf": ["haadf", "abf"],
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"structure": "nowhere.cif"}, ["structure", "nowhere.cif", "does not exist"]),
        ({"structure": STRUCTURE, "clean_fraction": 1.5}, ["clean_fraction", "1.5", "<= 0.9"]),
        ({"structure": STRUCTURE, "drift_nm_per_min": -1}, ["drift_nm_per_min", "-1", ">= 0", "nm/min"]),
        ({"structure": STRUCTURE, "beam_energy_ev": 1e9}, ["beam_energy_ev", "1000000000.0", "300000", "eV"]),
        ({"structure": STRUCTURE, "typo_nm": 1}, ["typo_nm", "not known"]),
        ({}, ["structure", "missing"]),
        ({"structure": STRUCTURE, "window_min_nm": 70}, ["window_min_nm", "70", "window_max_nm", "60"]),
        ({"structure": STRUCTURE, "initial_mode": "eels"}, ["initial_mode", "eels", "maadf"]),
        ({"structure": STRUCTURE, "initial_current_pa": 500}, ["initial_current_pa", "500", "100", "pA"]),
        ({"structure": STRUCTURE, "densities_per_nm2": {"X": 0.1}}, ["densities_per_nm2", "X", "V_Se"]),
        ({"structure": STRUCTURE, "densities_per_nm2": {"V_Se": 7}}, ["densities_per_nm2", "7", "0..1 per nm2"]),
        (
            {"structure": STRUCTURE, "defects": {"V_S": {"column": "S2", "becomes": ["S"]}}, "densities_per_nm2": {}},
            ["defects.V_S.column", "S2", "Se2"],
        ),
    ],
)
def test_bad_configuration_names_key_value_and_range(config: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        open_simulated(**config)
    assert [word for word in words if word not in str(refusal.value)] == []


def test_a_replayed_session_is_bit_identical(cache: str) -> None:
    commands = session(10)
    uninterrupted = twin(cache)
    counts = run(uninterrupted, commands)
    rebuilt = twin(cache)
    rebuilt.rebuild(commands[:-3])
    later = run(rebuilt, commands[-3:])
    assert all(same(counts[action_id], later[action_id]) for action_id in later)
    assert rebuilt.read_state() == uninterrupted.read_state()
    assert str(rebuilt.truth()["beam_made"]) == str(uninterrupted.truth()["beam_made"])
    redelivered = rebuilt.acquire(commands[0])
    assert same(redelivered.counts, counts[commands[0].action_id])


def test_redelivery_does_not_expose_and_does_not_depend_on_order(cache: str) -> None:
    microscope = twin(cache, excitation_60kv_barn=3e4, excitation_lognormal_factor=1.0)
    commands = [frame(f"f{n}", subframe_count=3) for n in range(4)]
    counts = run(microscope, list(commands))
    before = microscope.read_state()
    assert len(microscope.truth()["beam_made"]["x_nm"]) > 3
    for command in reversed(commands):
        assert same(microscope.acquire(command).counts, counts[command.action_id])
    assert microscope.read_state() == before
    truth = microscope.truth()
    assert truth["electrons"] == pytest.approx(sum(action["electrons"] for action in truth["actions"].values()))


def test_rebuild_of_hundreds_of_commands_makes_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulation.world.rendering import Renderer

    def forbidden(*_: object) -> None:
        raise AssertionError("an image was made")

    monkeypatch.setattr(Renderer, "noiseless", forbidden)
    microscope = twin()
    commands = session(300)
    microscope.rebuild(commands)
    assert {microscope.outcome(command.action_id) for command in commands} == {"delivered"}
    state = microscope.read_state()
    microscope.rebuild(commands)
    assert microscope.read_state() == state


def test_rebuild_passes_over_what_was_refused() -> None:
    plain, mixed = twin(), twin()
    plain.rebuild([frame("a"), frame("b")])
    mixed.rebuild([frame("a"), frame("no", mode="eels"), Park(action_id="far", beam_shift_x_nm=900.0), frame("b")])
    assert mixed.read_state() == plain.read_state()
    assert mixed.outcome("no") == "not_started"


def test_one_action_id_is_one_command(cache: str) -> None:
    microscope = twin(cache)
    microscope.rebuild([frame("a"), Blank(action_id="b")])
    with pytest.raises(CommandRefused, match="used for another command"):
        microscope.acquire(frame("a", subframe_count=1))
    with pytest.raises(CommandRefused, match="used for another command"):
        microscope.execute(Park(action_id="b"))
    with pytest.raises(CommandRefused, match="acquire"):
        microscope.execute(frame("c"))


def test_seeds_noise_and_world_are_apart(cache: str) -> None:
    first, second = twin(cache, seed=1, world_seed=7), twin(cache, seed=2, world_seed=7)
    assert str(first.truth()["native"]) == str(second.truth()["native"])
    command = frame("a")
    assert not same(first.acquire(command).counts, second.acquire(command).counts)
    assert len(twin(seed=1, world_seed=8).truth()["native"]["x_nm"]) != len(first.truth()["native"]["x_nm"])


REFUSED = [
    ({"mode": "eels"}, "mode 'eels'"),
    ({"optics": {"probe_current_pa": 5.0}}, "probe current 5 pa"),
    ({"optics": {"probe_current_pa": 101.0}}, "10 to 100"),
    ({"optics": {"beam_energy_ev": 80e3}}, "beam energy"),
    ({"optics": {"semi_convergence_angle_mrad": 20.0}}, "semi convergence angle"),
    ({"optics": {"defocus_nm": 101.0}}, "defocus 101 nm"),
    ({"optics": {"camera_length_mm": 80.0}}, "camera length 80 mm"),
    ({"optics": {"tilt_x_mrad": 1.0}}, "tilt x"),
    ({"optics": {"aberrations": {"c12_nm": 500.0}}}, "c12"),
    ({"optics": {"aberrations": {"c56_nm": 1.0}}}, "c56"),
    ({"scan": {"dwell_time_us": 0.4}}, "dwell time 0.4 us"),
    ({"scan": {"dwell_time_us": 21.0}}, "0.5 to 20"),
    ({"scan": {"beam_shift_x_nm": 501.0}}, "beam shift x 501 nm"),
    ({"scan": {"beam_shift_y_nm": -501.0}}, "beam shift y"),
    ({"scan": {"field_of_view_nm": 1001.0}}, "field of view"),
    ({"scan": {"shape_px": (0, 5)}}, "no pixels"),
    ({"scan": {"shape_px": (9000, 9000), "field_of_view_nm": 100.0}}, "frame"),
    ({"stage": StagePosition(x_nm=2e6)}, "stage x"),
    ({"stage": StagePosition(alpha_deg=1.0)}, "stage alpha"),
    ({"subframe_count": 257}, "subframe"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_it_cannot_do_is_refused_and_changes_nothing(changes: dict[str, Any], words: str) -> None:
    microscope = twin()
    microscope.rebuild([frame("a")])
    before, truth = microscope.read_state(), str(microscope.truth())
    for attempt in (microscope.acquire, microscope.forecast):
        with pytest.raises(CommandRefused, match=words):
            attempt(frame("b", **changes))
    assert microscope.read_state() == before
    assert str(microscope.truth()) == truth
    assert microscope.outcome("b") == "not_started"


def test_settling_costs_time() -> None:
    def seconds(*commands: Command) -> float:
        microscope = twin()
        microscope.rebuild([frame("first"), *commands])
        return microscope.read_state().time_s

    plain = seconds(frame("a"))
    exposure_s = 2e-6 + 2 * 48 * 64 * 1e-6
    assert plain == pytest.approx(2 * exposure_s)
    assert seconds(frame("a", mode="haadf")) - plain == pytest.approx(10)
    assert seconds(frame("a", optics={"probe_current_pa": 50.0})) - plain == pytest.approx(20)
    assert seconds(frame("a", scan={"beam_shift_x_nm": 10.0})) - plain == pytest.approx(0.05)
    assert seconds(frame("a", stage=StagePosition(x_nm=1000.0))) - plain == pytest.approx(2 + 1000 / 500)
    assert seconds(frame("a", scan={"flyback_time_us": 100.0})) - plain == pytest.approx(2 * 48 * 100e-6)
    assert seconds(frame("a"), Park(action_id="p", duration_s=3.0)) - plain == pytest.approx(3)


def test_forecast_is_what_happens(cache: str) -> None:
    microscope = twin(cache)
    for command in session(6):
        if not isinstance(command, AcquireFrame):
            microscope.execute(command)
            continue
        started_s = microscope.read_state().time_s
        amount, seconds = microscope.forecast(command)
        assert microscope.read_state().time_s == started_s
        taken = microscope.acquire(command)
        assert taken.instrument_time_s == pytest.approx(seconds)
        assert taken.electrons == pytest.approx(amount, rel=0.031)
        assert microscope.truth()["actions"][command.action_id]["electrons"] == pytest.approx(amount, rel=1e-6)


def test_dose_bookkeeping_sums() -> None:
    microscope = twin()
    microscope.rebuild(session(12))
    truth = microscope.truth()
    frames = sum(action["electrons"] for action in truth["actions"].values())
    assert truth["electrons"] > frames  # parking with the beam on counts too
    assert truth["electrons"] - frames == pytest.approx(electrons(30.0, 0.06 + 2e-6), rel=0.02)
    quiet = twin()
    quiet.rebuild([frame("a"), survey("b")])
    inside = quiet.truth()
    assert inside["dose_map_e_per_a2"].sum() * 100 == pytest.approx(inside["electrons"], rel=2e-3)
    assert inside["dose_max_e_per_a2"] >= inside["dose_map_e_per_a2"].max() * (1 - 1e-9)
    nominal = 30e-12 * 2 * 48 * 64e-6 / 1.602176634e-19
    assert inside["actions"]["a"]["electrons"] == pytest.approx(nominal + electrons(30.0, 2e-6), rel=1e-3)


def test_read_back_follows_the_decaying_current(cache: str) -> None:
    microscope = twin(cache)
    microscope.rebuild([Park(action_id="wait", duration_s=3600.0)])
    expected = 30.0 * (1 - microscope.truth()["emission_decay_fraction"] * (1 - np.exp(-3.0)))
    taken = microscope.acquire(frame("a"))
    assert 0.1 <= microscope.truth()["emission_decay_fraction"] <= 0.3
    assert taken.state.measured_current_pa == pytest.approx(expected, rel=0.031)
    assert taken.dose_e_per_a2 == pytest.approx(electrons(expected, 2e-6) * 48 * 64 / 1200, rel=0.031)
    readings = []
    for n in range(200):
        microscope.rebuild([Park(action_id=f"p{n}")])
        readings.append((microscope.read_state().measured_current_pa or 0.0) / expected)
    assert np.mean(readings) == pytest.approx(1, abs=0.004)
    assert np.std(readings) == pytest.approx(0.01, rel=0.2)


def test_counts_are_poisson_about_the_noiseless_image(cache: str) -> None:
    microscope = twin(cache)
    taken = microscope.acquire(frame("a", scan={"shape_px": (128, 128), "dwell_time_us": 4.0}, subframe_count=3))
    exposure = microscope.exposure("a")
    assert taken.counts["maadf"].shape == (3, 128, 128)
    assert taken.counts["maadf"].dtype == np.uint16
    for subframe in range(3):
        per_px = exposure.true_electrons[subframe] / 128**2
        for name, image in microscope.noiseless("a", subframe).items():
            mean = image.astype(float) * per_px
            pull = (taken.counts[name][subframe] - mean) / np.sqrt(mean)
            assert abs(pull.mean()) < 4 / 128
            assert pull.var() == pytest.approx(1, abs=4 * np.sqrt(2.5) / 128)


def test_images_match_the_lattice_images_point_by_point(cache: str) -> None:
    """A perfect clean world: each noiseless pixel is the periodic image at its true place, by another interpolation."""
    from scipy.ndimage import map_coordinates

    from simulation.world.frame_images import Imaging

    microscope = twin(
        cache, clean_fraction=0.9, densities_per_nm2={}, window_min_nm=100, window_max_nm=400, afterglow_us=0.0,
        contamination_nm=1e-6,
    )  # fmt: skip
    command = frame("a", scan={"rotation_deg": 20.0, "beam_shift_x_nm": 7.0})
    microscope.rebuild([command])
    renderer, exposure = microscope._renderer, microscope.exposure("a")
    x_nm, y_nm = renderer._grid(exposure, 1).points()
    crystal = microscope.world.crystal
    coherence = microscope.world.beam.coherence(30.0)
    imaging = Imaging(40.0, 100.0, renderer.true_optics(exposure), coherence)
    cell = renderer._images.cell_image(40.0, 100.0, imaging.optics, imaging.coherence)
    rows, columns = cell.shape
    expected = map_coordinates(
        cell,
        [
            (y_nm - crystal.origin_y_nm) / crystal.cell_height_nm * rows,
            (x_nm - crystal.origin_x_nm) / crystal.cell_width_nm * columns,
        ],
        order=5,
        mode="grid-wrap",
    )
    np.testing.assert_allclose(microscope.noiseless("a", 1)["maadf"], expected, atol=2e-4 * expected.std())


def test_a_beam_made_vacancy_appears_at_a_sub_frame_boundary(cache: str) -> None:
    microscope = twin(
        cache, excitation_60kv_barn=1e5, excitation_lognormal_factor=1.0, clean_fraction=0.9, densities_per_nm2={},
        window_min_nm=100, window_max_nm=400, line_jitter_nm=0.0, contamination_nm=1e-6,
    )  # fmt: skip
    microscope.acquire(frame("a", subframe_count=4))
    births = microscope.truth()["beam_made"]
    born = births["subframe"] == 2
    assert born.any()
    assert set(births["subframe"]) <= {0, 1, 2, 3, 4}
    change = microscope.noiseless("a", 2)["maadf"] - microscope.noiseless("a", 1)["maadf"]
    row, column = np.unravel_index(np.argmin(change), change.shape)
    x_nm, y_nm = (column - 31.5) / 16, (row - 23.5) / 16
    shift = microscope.truth()["actions"]["a"]["displacement_nm"]
    distance = np.hypot(births["x_nm"] - shift[0] - x_nm, births["y_nm"] - shift[1] - y_nm)[born]
    assert distance.min() < 0.1


def test_contamination_is_bright_in_maadf_and_hides_the_lattice(cache: str) -> None:
    microscope = twin(cache)
    microscope.acquire(survey("a"))
    image, truth = microscope.noiseless("a", 0)["maadf"], microscope.truth()
    dx, dy = truth["actions"]["a"]["displacement_nm"]
    positions = (np.arange(64) - 31.5) * 60 / 64
    clean = microscope.world.landscape.clean_at(*np.meshgrid(positions + dx, positions + dy))
    assert image[~clean].mean() > 1.1 * image[clean].mean()


def test_drift_moves_the_specimen_as_told_and_stage_moves_miss() -> None:
    microscope = twin()
    microscope.rebuild(
        [
            frame("a"),
            Park(action_id="w", duration_s=600),
            frame("b"),
            frame("c", stage=StagePosition(x_nm=10.0)),
            Park(action_id="v", duration_s=180),
            frame("d", stage=StagePosition(x_nm=10.0)),
        ]
    )
    at = {name: np.array(action["displacement_nm"]) for name, action in microscope.truth()["actions"].items()}
    assert np.hypot(*at["a"]) < 0.05
    assert 1 < np.hypot(*(at["b"] - at["a"])) < 25
    assert 45 < np.hypot(*(at["c"] - at["b"])) < 305
    assert np.hypot(*(at["d"] - at["c"])) < 3 * (3 + 1.5)
    assert microscope.read_state().stage.x_nm == 10.0


def test_rms_drift_speed_is_the_stated_one() -> None:
    speeds = []
    for seed in range(40):
        drift = Drift.draw(SimulatedConfig(structure=STRUCTURE, seed=seed))
        times_s = np.arange(0.0, 1200.0, 10.0)
        vx, vy = (np.diff(axis.at(times_s)) * 6 for axis in (drift.x, drift.y))
        speeds.append(np.mean(vx**2 + vy**2))
    assert np.sqrt(np.mean(speeds)) == pytest.approx(1.0, rel=0.12)


def test_stop_from_another_thread_blanks_for_good(cache: str) -> None:
    microscope = twin(cache)
    microscope.execute(Unblank(action_id="u"))
    assert not microscope.read_state().beam_blanked
    first = microscope.acquire(frame("a"))
    thread = threading.Thread(target=microscope.stop)
    thread.start()
    thread.join()
    microscope.stop()
    assert microscope.read_state().beam_blanked
    with pytest.raises(InstrumentFault, match="stopped"):
        microscope.acquire(frame("b"))
    with pytest.raises(InstrumentFault, match="stopped"):
        microscope.execute(Unblank(action_id="u2"))
    assert microscope.outcome("b") == "not_started"
    assert microscope.execute(Blank(action_id="x")).beam_blanked
    assert same(microscope.acquire(frame("a")).counts, first.counts)


def test_the_frame_tells_what_a_catalogue_wants_and_nothing_hidden(cache: str) -> None:
    taken = twin(cache).acquire(frame("a"))
    assert taken.context["is_simulation"]
    assert taken.context["electrons_per_px_subframe"] == pytest.approx(electrons(30.0, 1e-6), rel=0.031)
    assert taken.state.optics.aberrations.c30_nm == 0
    assert taken.state.optics.camera_length_mm == 160.0
    assert taken.state.coherence is not None
    assert taken.state.coherence.source_size_nm == pytest.approx(0.08 * np.sqrt(0.5))
    assert "focus_offset" not in str(taken.context)


def test_blanking_a_blanked_beam_changes_nothing(cache: str) -> None:
    """A run that was paused, its beam blanked, goes on with the draws of one that was not."""
    undisturbed, paused = twin(cache), twin(cache)
    undisturbed.acquire(frame("a"))
    paused.acquire(frame("a"))
    paused.execute(Blank(action_id="pause"))
    assert paused.outcome("pause") == "delivered"
    assert paused.read_state() == undisturbed.read_state()
    assert same(paused.acquire(frame("b")).counts, undisturbed.acquire(frame("b")).counts)
    paused.execute(Unblank(action_id="u"))
    paused.execute(Blank(action_id="v"))
    assert not same(paused.acquire(frame("c")).counts, undisturbed.acquire(frame("c")).counts)


def test_a_stop_cuts_the_wait_short_and_not_the_exposure(cache: str) -> None:
    """With `time_scale` the beam is on in wall time; stopped and released, frames are those of an undisturbed twin."""
    undisturbed, slow = twin(cache), twin(cache, time_scale=10_000.0)
    frames: list[Any] = []
    exposing = threading.Thread(target=lambda: frames.append(slow.acquire(frame("a"))))
    exposing.start()
    while slow.read_state().beam_blanked:
        assert exposing.is_alive()
    slow.stop()
    assert slow.read_state().beam_blanked
    exposing.join()
    with pytest.raises(InstrumentFault, match="no further exposure"):
        slow.acquire(frame("b"))
    assert same(frames[0].counts, undisturbed.acquire(frame("a")).counts)
    assert isinstance(slow, Releasable)
    slow.release()
    assert slow.read_state() == undisturbed.read_state()
    slow.rebuild([frame("b")])  # rebuilding waits for nothing
    assert same(slow.acquire(frame("b")).counts, undisturbed.acquire(frame("b")).counts)


def test_released_after_a_stop_the_beam_is_blanked(cache: str) -> None:
    microscope = twin(cache)
    microscope.execute(Unblank(action_id="u"))
    assert not microscope.read_state().beam_blanked
    microscope.stop()
    assert microscope.read_state().beam_blanked
    microscope.release()
    assert microscope.read_state().beam_blanked


def setting(action_id: str, **values: float | str) -> SetAxes:
    return SetAxes(action_id=action_id, values=values)


def test_axes_set_alone_are_those_the_next_frame_finds() -> None:
    moved, framed = twin(), twin()
    state = moved.execute(setting("go", x_nm=5.0, defocus_nm=4.0, beam_shift_y_nm=2.0))
    assert {name: (one.requested, one.is_reached) for name, one in state.axes.items()} == {
        "x_nm": (5.0, True), "defocus_nm": (4.0, True), "beam_shift_y_nm": (2.0, True),
    }  # fmt: skip
    assert (state.stage.x_nm, state.optics.defocus_nm, state.beam_shift_y_nm) == (5.0, 4.0, 2.0)
    assert state.beam_blanked
    settings = moved.config
    assert state.time_s == pytest.approx(
        settings.stage_move_s + 5.0 / settings.stage_speed_nm_per_s + settings.beam_shift_settle_s
    )
    framed.rebuild([setting("go", x_nm=5.0, defocus_nm=4.0, beam_shift_y_nm=2.0)])
    assert framed.read_state() == moved.read_state()
    assert moved.execute(setting("go", x_nm=5.0, defocus_nm=4.0, beam_shift_y_nm=2.0)).time_s == state.time_s


def test_axes_that_cannot_be_set_move_nothing() -> None:
    microscope = twin()
    before = microscope.read_state()
    with pytest.raises(Unsupported, match="no axis screen"):
        microscope.execute(setting("a", x_nm=1.0, screen="up"))
    with pytest.raises(CommandRefused, match="x_nm 1e\\+09 is outside"):
        microscope.execute(setting("b", x_nm=1e9))
    with pytest.raises(CommandRefused, match="comes with each frame"):
        microscope.execute(setting("c", dwell_time_us=1.0))
    with pytest.raises(CommandRefused, match="comes with the mode"):
        microscope.execute(setting("d", camera_length_mm=100.0))
    with pytest.raises(Unsupported, match="no procedure 'normalise'"):
        microscope.execute(RunProcedure(action_id="e", name="normalise"))
    assert microscope.read_state() == before
    microscope.execute(Unblank(action_id="u"))
    with pytest.raises(CommandRefused, match="would burn while axes move"):
        microscope.execute(setting("f", x_nm=1.0))


def test_a_scanned_mode_is_not_exposed_at_once() -> None:
    microscope = twin()
    wanted = frame("a")
    with pytest.raises(CommandRefused, match="not exposed at once"):
        microscope.acquire(wanted.model_copy(update={"scan": wanted.scan.model_copy(update={"at_once": True})}))
    assert microscope.outcome("a") == "not_started"
