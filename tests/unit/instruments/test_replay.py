"""The replay instrument gives what was recorded, once, and is a pure function of its commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import instruments
from instruments import (
    AcquireFrame,
    Blank,
    CommandRefused,
    ConfigurationError,
    Forecasting,
    Frame,
    GuardedMicroscope,
    HiddenTruth,
    InstrumentFault,
    Microscope,
    Park,
    Rebuildable,
    SafetyEnvelope,
    StagePosition,
    Unblank,
)
from instruments.adapters.replay import ReplayMicroscope, open_replay
from instruments.readers import read_spectrum_maps
from instruments.units import electrons
from tests.unit.instruments.replay_files import (
    CURRENT_PA,
    FULL_DWELL_US,
    LINES,
    PIXEL_NM,
    command,
    config,
    write_record,
)

SIDE_PX = 64


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("replay") / "record.npz", SIDE_PX)


@pytest.fixture
def replay(record: Path) -> ReplayMicroscope:
    return open_replay(**config(record))


def whole(action_id: str, dwell_time_us: float = FULL_DWELL_US, **more: object) -> AcquireFrame:
    return command(action_id, side_px=SIDE_PX, dwell_time_us=dwell_time_us, **more)  # type: ignore[arg-type]


def same(one: Frame, other: Frame) -> bool:
    arrays = all(np.array_equal(one.counts[name], other.counts[name]) for name in one.counts)
    return (
        arrays
        and one.counts.keys() == other.counts.keys()
        and (one.state, one.started_s) == (other.state, other.started_s)
    )


def test_it_is_found_by_name_and_fulfils_the_protocols(record: Path) -> None:
    opened = instruments.open("replay", **config(record))
    for protocol in (Microscope, Forecasting, Rebuildable, HiddenTruth):
        assert isinstance(opened, protocol)
    modes = {mode.name: mode for mode in opened.capabilities().modes}
    assert modes["eds"].kind == "eds"
    assert [detector.name for detector in modes["eds"].detectors] == list(LINES)
    assert not modes["survey"].detectors[0].raw_counts


def test_measured_and_held_out_counts_are_what_was_recorded(record: Path, replay: ReplayMicroscope) -> None:
    recorded = read_spectrum_maps(record).counts
    frame = replay.acquire(whole("all"))
    heldout = replay.truth()["heldout_counts"]
    for line in LINES:
        assert np.array_equal(frame.total(line) + heldout[line], recorded[line])
        total = recorded[line].sum()
        assert abs(heldout[line].sum() - total / 2) < 4 * np.sqrt(total) / 2


def test_measured_fraction_sets_split_and_exposure_ratio(record: Path) -> None:
    replay = open_replay(**config(record, measured_fraction=0.2))
    truth = replay.truth()
    assert truth["exposure_ratio"] == pytest.approx(4.0)
    total = read_spectrum_maps(record).counts["Fe_Ka"].sum()
    measured = replay.acquire(whole("all")).total("Fe_Ka").sum()
    assert abs(measured - 0.2 * total) < 4 * np.sqrt(total * 0.2 * 0.8)


def test_survey_is_the_recorded_image(record: Path, replay: ReplayMicroscope) -> None:
    frame = replay.acquire(whole("survey", dwell_time_us=1.0, mode="survey"))
    assert np.array_equal(frame.counts["haadf"][0], read_spectrum_maps(record).survey)
    assert frame.counts["haadf"].dtype.kind == "u"
    assert replay.truth()["exposed_us"].max() == 0
    with pytest.raises(CommandRefused, match="1 sub-frame"):
        replay.acquire(whole("again", dwell_time_us=1.0, mode="survey", subframe_count=2))


@pytest.mark.parametrize(("configured_us", "in_file_us", "bin_px"), [(3.0, None, 1), (None, 4.0, 1), (2.0, 2.0, 4)])
def test_a_survey_has_the_dose_it_was_recorded_with_and_no_other(
    tmp_path: Path, configured_us: float | None, in_file_us: float | None, bin_px: int
) -> None:
    said = {} if in_file_us is None else {"survey_dwell_time_us": in_file_us}
    path = write_record(tmp_path / "record.npz", 16, **said)
    replay = open_replay(**config(path, survey_dwell_time_us=configured_us, bin_px=bin_px))
    recorded_us = (in_file_us or configured_us or 0.0) * bin_px**2
    place = {"side_px": 16 // bin_px, "pixel_nm": PIXEL_NM * bin_px, "mode": "survey"}
    for other_us in (recorded_us / 1000, recorded_us * 1.01, FULL_DWELL_US):
        other = command("other", dwell_time_us=other_us, **place)
        for ask in (replay.acquire, replay.forecast):
            with pytest.raises(CommandRefused, match=f"recorded with {recorded_us:g} us a point"):
                ask(other)
    assert replay.truth()["electrons"] == 0
    frame = replay.acquire(command("own", dwell_time_us=recorded_us, **place))
    assert frame.electrons == pytest.approx(electrons(CURRENT_PA, 256 / bin_px**2 * recorded_us * 1e-6))


def test_a_survey_dwell_is_said_once(tmp_path: Path) -> None:
    path = write_record(tmp_path / "record.npz", 16, survey_dwell_time_us=4.0)
    with pytest.raises(ConfigurationError, match=r"survey_dwell_time_us is 3 us, and 4 us in record.npz; leave it out"):
        open_replay(**config(path, survey_dwell_time_us=3.0))


def test_short_dwells_thin_and_add_up_to_the_whole(record: Path, replay: ReplayMicroscope) -> None:
    at_once = open_replay(**config(record)).acquire(whole("all"))
    parts = [replay.acquire(whole(f"part {i}", dwell)) for i, dwell in enumerate((300.0, 500.0, 200.0))]
    for line in LINES:
        assert np.array_equal(sum(part.total(line) for part in parts), at_once.total(line))
        total = at_once.total(line).sum()
        assert abs(parts[0].total(line).sum() - 0.3 * total) < 4 * np.sqrt(total * 0.3 * 0.7)


def test_subframes_share_the_same_counts(record: Path, replay: ReplayMicroscope) -> None:
    frame = replay.acquire(whole("fifths", FULL_DWELL_US / 5, subframe_count=5))
    assert frame.counts["Fe_Ka"].shape == (5, SIDE_PX, SIDE_PX)
    at_once = open_replay(**config(record)).acquire(whole("all"))
    assert np.array_equal(frame.total("Fe_Ka"), at_once.total("Fe_Ka"))
    share = frame.counts["Fe_Ka"].sum(axis=(1, 2))
    assert share.min() > 0.8 * share.mean()


def test_a_spent_point_is_refused_and_nothing_moves(replay: ReplayMicroscope) -> None:
    replay.acquire(command("first", 20.0, 0.0, 4, dwell_time_us=0.75 * FULL_DWELL_US))
    before = replay.read_state()
    with pytest.raises(CommandRefused, match=r"500 us is longer than the 250 us of recorded exposure left"):
        replay.acquire(command("too long", 20.0, 0.0, 4, dwell_time_us=500.0))
    assert replay.outcome("too long") == "not_started"
    replay.acquire(command("rest", 20.0, 0.0, 4, dwell_time_us=0.25 * FULL_DWELL_US))
    with pytest.raises(CommandRefused, match="no more recorded exposure"):
        replay.acquire(command("more", 20.0, 0.0, 4, dwell_time_us=1.0))
    assert replay.read_state().time_s > before.time_s
    # The neighbour is untouched.
    assert replay.acquire(command("neighbour", 60.0, 0.0, 4)).total("Fe_Ka").shape == (4, 4)


def test_no_dwell_beyond_the_record(replay: ReplayMicroscope) -> None:
    with pytest.raises(CommandRefused, match="longer than the 1000 us"):
        replay.acquire(command("long", dwell_time_us=FULL_DWELL_US * 1.001))


def test_block_lies_where_it_was_asked_for(record: Path, replay: ReplayMicroscope) -> None:
    at_once = open_replay(**config(record)).acquire(whole("all"))
    truth = replay.truth()
    row, column = 5, 40
    point = replay.acquire(command("point", truth["x_nm"][column] + 3.0, truth["y_nm"][row] - 4.0, 1))
    assert point.total("Fe_Ka")[0, 0] == at_once.total("Fe_Ka")[row, column]
    assert point.state.beam_shift_x_nm == pytest.approx(truth["x_nm"][column])
    assert point.state.beam_shift_y_nm == pytest.approx(truth["y_nm"][row])
    block = replay.acquire(command("block", truth["x_nm"][10:14].mean(), truth["y_nm"][20:24].mean(), 4))
    for line in LINES:
        assert np.array_equal(block.total(line), at_once.total(line)[20:24, 10:14])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"x_nm": 321.0}, "leaves the recorded field"),
        ({"y_nm": -310.0}, "leaves the recorded field"),
        ({"pixel_nm": 11.5}, "set field_of_view_nm to 40 nm"),
        ({"side_px": 65}, "64 x 64 px"),
        ({"rotation_deg": 30.0}, "ask for 0 deg"),
        ({"current_pa": 99.0}, "declared current 100 pA"),
        ({"mode": "eels"}, "survey, eds"),
        ({"stage": StagePosition(x_nm=1.0)}, "no stage"),
    ],
)
def test_what_was_not_recorded_is_refused(replay: ReplayMicroscope, wrong: dict[str, object], says: str) -> None:
    before = replay.read_state()
    with pytest.raises(CommandRefused, match=says):
        replay.acquire(command("wrong", **wrong))  # type: ignore[arg-type]
    with pytest.raises(CommandRefused, match=says):
        replay.forecast(command("wrong", **wrong))  # type: ignore[arg-type]
    assert replay.read_state() == before
    assert replay.outcome("wrong") == "not_started"
    assert replay.truth()["exposed_us"].max() == 0


def test_binned_at_open_is_the_sum_of_blocks(record: Path) -> None:
    binned = open_replay(**config(record, bin_px=4))
    recorded = read_spectrum_maps(record).counts["Mg_Ka"]
    frame = binned.acquire(command("all", side_px=16, pixel_nm=4 * PIXEL_NM, dwell_time_us=16 * FULL_DWELL_US))
    measured = frame.total("Mg_Ka") + binned.truth()["heldout_counts"]["Mg_Ka"]
    assert np.array_equal(measured, recorded.reshape(16, 4, 16, 4).sum(axis=(1, 3)))


def test_clock_and_electrons_follow_the_commands(replay: ReplayMicroscope) -> None:
    asked = command("a", 20.0, 20.0)
    forecast = replay.forecast(asked)
    frame = replay.acquire(asked)
    beam_s = 16 * FULL_DWELL_US * 1e-6
    assert frame.electrons == pytest.approx(electrons(CURRENT_PA, beam_s))
    assert frame.dose_e_per_a2 == pytest.approx(frame.electrons / (40.0**2 * 100))
    assert frame.instrument_time_s == pytest.approx(0.05 + beam_s)
    assert forecast == pytest.approx((frame.electrons, frame.instrument_time_s))
    assert replay.truth()["electrons"] == pytest.approx(frame.electrons)
    assert replay.read_state().time_s == pytest.approx(frame.ended_s)


def test_the_guard_charges_no_less_than_it_spends(replay: ReplayMicroscope) -> None:
    guarded = GuardedMicroscope(replay, SafetyEnvelope(max_electrons=1.5 * electrons(CURRENT_PA, 0.016)))
    frame = guarded.acquire(command("a"))
    assert guarded.ledger.electrons == pytest.approx(frame.electrons)
    with pytest.raises(CommandRefused, match="electrons after this frame"):
        guarded.acquire(command("b", 40.0))


def test_an_action_is_delivered_again_unchanged(replay: ReplayMicroscope) -> None:
    asked = command("once", 20.0, 20.0, dwell_time_us=300.0, subframe_count=2)
    first = replay.acquire(asked)
    replay.acquire(command("other", 20.0, 20.0, dwell_time_us=300.0))
    state = replay.read_state()
    assert same(replay.acquire(asked), first)
    assert replay.read_state() == state
    with pytest.raises(CommandRefused, match="new action id"):
        replay.acquire(command("once", -20.0, 20.0))


def test_rebuilt_it_is_what_it_was(record: Path, replay: ReplayMicroscope) -> None:
    rng = np.random.default_rng(3)
    commands: list[instruments.Command] = [whole("survey", 1.0, mode="survey")]
    commands += [
        command(f"{i}", *(rng.integers(-7, 7, 2) * 40.0 + 20.0), dwell_time_us=float(rng.choice([100.0, 400.0, 900.0])))
        for i in range(60)
    ]
    commands.insert(20, Park(action_id="park", beam_shift_x_nm=33.0, duration_s=1.0))
    commands.insert(40, Blank(action_id="blank"))
    frames: dict[str, Frame] = {}
    for one in commands:
        try:
            if isinstance(one, AcquireFrame):
                frames[one.action_id] = replay.acquire(one)
            else:
                replay.execute(one)
        except CommandRefused:
            continue
    assert 40 < len(frames) < 61, "some revisits must have been refused"
    again = open_replay(**config(record))
    again.rebuild(commands)
    assert again.read_state() == replay.read_state()
    for one in commands:
        assert again.outcome(one.action_id) == replay.outcome(one.action_id)
        if one.action_id in frames and isinstance(one, AcquireFrame):
            assert same(again.acquire(one), frames[one.action_id])
    later = command("later", -300.0, -300.0)
    assert same(again.acquire(later), replay.acquire(later))


def test_lines_do_not_depend_on_each_other_but_on_the_seed(record: Path, replay: ReplayMicroscope) -> None:
    alone = open_replay(**config(record, lines=["Mg_Ka"])).acquire(whole("all"))
    assert list(alone.counts) == ["Mg_Ka"]
    together = replay.acquire(whole("all"))
    assert np.array_equal(alone.total("Mg_Ka"), together.total("Mg_Ka"))
    reseeded = open_replay(**config(record, seed=6)).acquire(whole("all"))
    assert not np.array_equal(reseeded.total("Mg_Ka"), together.total("Mg_Ka"))


def test_stop_blanks_and_refuses_until_reopened(replay: ReplayMicroscope) -> None:
    frame = replay.acquire(command("a"))
    replay.execute(Unblank(action_id="on"))
    assert not replay.read_state().beam_blanked
    replay.stop()
    replay.stop()
    assert replay.read_state().beam_blanked
    with pytest.raises(InstrumentFault, match="open it again"):
        replay.acquire(command("b", 40.0))
    with pytest.raises(InstrumentFault):
        replay.execute(Blank(action_id="off"))
    assert same(replay.acquire(command("a")), frame)
    replay.release()
    assert replay.read_state().beam_blanked
    assert replay.acquire(command("b", 40.0)).action_id == "b"


def test_frames_do_not_go_through_execute_and_parking_stays_in_the_field(replay: ReplayMicroscope) -> None:
    with pytest.raises(CommandRefused, match="acquire"):
        replay.execute(command("a"))
    with pytest.raises(CommandRefused, match=r"1000 nm is outside -320 to 320 nm"):
        replay.execute(Park(action_id="p", beam_shift_x_nm=1000.0))
    assert replay.execute(Park(action_id="q", beam_shift_y_nm=-300.0, duration_s=2.0)).time_s == pytest.approx(2.05)


@pytest.mark.real_data
def test_the_measured_file_replays(real_data: Path) -> None:
    path = real_data / "replay" / "idp_tilt0_maps.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder of measured files")
    replay = open_replay(file=path, lines=["Fe_Ka"], full_dwell_time_us=2170.0, nominal_current_pa=500.0)
    pixel_nm = replay.truth()["pixel_size_nm"]
    everything = replay.acquire(
        command("all", side_px=256, pixel_nm=pixel_nm, dwell_time_us=2170.0, current_pa=500.0)
    ).total("Fe_Ka")
    assert everything.sum() + replay.truth()["heldout_counts"]["Fe_Ka"].sum() == 15356
