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
    Park,
    Rebuildable,
    Releasable,
    RunProcedure,
    StagePosition,
    Unblank,
    Unsupported,
)
from instruments.units import electrons
from simulation.microscope import SimulatedMicroscope, open_simulated
from tests.integration.twin_bench import STRUCTURE, frame, setting, survey, twin


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
        ({"structure": STRUCTURE, "clean_fraction": 1.5}, ["clean_fraction", "1.5", "0.9"]),
        ({"structure": STRUCTURE, "drift_nm_per_min": -1}, ["drift_nm_per_min", "-1", "0", "nm/min"]),
        ({"structure": STRUCTURE, "beam_energy_ev": 1e9}, ["beam_energy_ev", "1000000000.0", "300000", "eV"]),
        ({"structure": STRUCTURE, "typo_nm": 1}, ["typo_nm", "known"]),
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


def test_a_replayed_session_is_bit_identical(image_cache: Path) -> None:
    commands = session(10)
    uninterrupted = twin(image_cache)
    counts = run(uninterrupted, commands)
    rebuilt = twin(image_cache)
    rebuilt.rebuild(commands[:-3])
    later = run(rebuilt, commands[-3:])
    assert all(same(counts[action_id], later[action_id]) for action_id in later)
    assert rebuilt.read_state() == uninterrupted.read_state()
    assert str(rebuilt.truth()["beam_made"]) == str(uninterrupted.truth()["beam_made"])
    redelivered = rebuilt.acquire(commands[0])
    assert same(redelivered.counts, counts[commands[0].action_id])


def test_redelivery_does_not_expose_and_does_not_depend_on_order(image_cache: Path) -> None:
    microscope = twin(image_cache, excitation_60kv_barn=3e4, excitation_lognormal_factor=1.0)
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


def test_one_action_id_is_one_command(image_cache: Path) -> None:
    microscope = twin(image_cache)
    microscope.rebuild([frame("a"), Blank(action_id="b")])
    with pytest.raises(CommandRefused, match="used for another command"):
        microscope.acquire(frame("a", subframe_count=1))
    with pytest.raises(CommandRefused, match="used for another command"):
        microscope.execute(Park(action_id="b"))
    with pytest.raises(CommandRefused, match="acquire"):
        microscope.execute(frame("c"))


def test_seeds_noise_and_world_are_apart(image_cache: Path) -> None:
    first, second = twin(image_cache, seed=1, world_seed=7), twin(image_cache, seed=2, world_seed=7)
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
    ({"optics": {"aberrations": {"c12_nm": 500.0}}}, "c12"),
    ({"scan": {"dwell_time_us": 0.4}}, "dwell time 0.4 us"),
    ({"scan": {"dwell_time_us": 21.0}}, "0.5 to 20"),
    ({"scan": {"beam_shift_x_nm": 501.0}}, "beam shift x 501 nm"),
    ({"scan": {"beam_shift_y_nm": -501.0}}, "beam shift y"),
    ({"scan": {"field_of_view_nm": 1001.0}}, "field of view"),
    ({"scan": {"shape_px": (0, 5)}}, "no pixels"),
    ({"scan": {"shape_px": (9000, 9000), "field_of_view_nm": 100.0}}, "frame"),
    ({"stage": StagePosition(x_nm=2e6)}, "stage x"),
    ({"subframe_count": 257}, "number of sub-frames"),
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


MISSING = [
    ({"optics": {"tilt_x_mrad": 1.0}}, "tilt_x_mrad"),
    ({"optics": {"aberrations": {"c56_nm": 1.0}}}, "c56_nm"),
]


@pytest.mark.parametrize(("changes", "axis"), MISSING, ids=[axis for _, axis in MISSING])
def test_what_it_has_no_axis_for_is_unsupported(changes: dict[str, Any], axis: str) -> None:
    microscope = twin()
    with pytest.raises(Unsupported, match=f"no axis {axis}"):
        microscope.acquire(frame("a", **changes))
    assert microscope.outcome("a") == "not_started"


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


def test_forecast_is_what_happens(image_cache: Path) -> None:
    microscope = twin(image_cache)
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


def test_stop_from_another_thread_blanks_for_good(image_cache: Path) -> None:
    microscope = twin(image_cache)
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


def test_blanking_a_blanked_beam_changes_nothing(image_cache: Path) -> None:
    """A run that was paused, its beam blanked, goes on with the draws of one that was not."""
    undisturbed, paused = twin(image_cache), twin(image_cache)
    undisturbed.acquire(frame("a"))
    paused.acquire(frame("a"))
    paused.execute(Blank(action_id="pause"))
    assert paused.outcome("pause") == "delivered"
    assert paused.read_state() == undisturbed.read_state()
    assert same(paused.acquire(frame("b")).counts, undisturbed.acquire(frame("b")).counts)
    paused.execute(Unblank(action_id="u"))
    paused.execute(Blank(action_id="v"))
    assert not same(paused.acquire(frame("c")).counts, undisturbed.acquire(frame("c")).counts)


def test_a_stop_cuts_the_wait_short_and_not_the_exposure(image_cache: Path) -> None:
    """With `time_scale` the beam is on in wall time; stopped and released, frames are those of an undisturbed twin."""
    undisturbed, slow = twin(image_cache), twin(image_cache, time_scale=10_000.0)
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


def test_released_after_a_stop_the_beam_is_blanked(image_cache: Path) -> None:
    microscope = twin(image_cache)
    microscope.execute(Unblank(action_id="u"))
    assert not microscope.read_state().beam_blanked
    microscope.stop()
    assert microscope.read_state().beam_blanked
    microscope.release()
    assert microscope.read_state().beam_blanked


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
    with pytest.raises(CommandRefused, match="comes with no mode; choose one of 160 \\(maadf\\), 80 \\(haadf\\) mm"):
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
