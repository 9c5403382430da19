"""The instamatic adapter against instamatic's own server and simulated microscope, in a process of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from instruments import (
    AcquireFrame,
    Blank,
    CommandRefused,
    ConfigurationError,
    GuardedMicroscope,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    Microscope,
    Optics,
    Park,
    Releasable,
    RunProcedure,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    Unblank,
    Unsupported,
)
from instruments.conformance import Conditions
from instruments.conformance.proxy import FaultyLine
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.instamatic_target import InstamaticTarget
from tests.integration.instruments.server_process import Otherwise
from tests.waiting import until

SHIFT = {"matrix": ((0.5, 0.0), (0.0, -0.5))}  # nm per count, y turned
CONFIG: dict[str, Any] = {
    "limits": {
        "x_nm": (-200_000, 200_000), "y_nm": (-200_000, 200_000), "z_nm": (-20_000, 20_000),
        "alpha_deg": (-45, 45), "beam_shift_x_nm": (-5000, 5000), "beam_shift_y_nm": (-5000, 5000),
        "spot_index": (1, 5),
    },
    "deflectors": {"beam_shift": SHIFT},
    "answer_s": 30.0,
}  # fmt: skip
HASTE = {"answer_s": 1.0}  # for tests that wait in vain
FAR_NM = 3e7  # the simulated stage takes five minutes


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstamaticTarget]:
    with InstamaticTarget(tmp_path_factory.mktemp("instamatic"), CONFIG) as target:
        yield target


@pytest.fixture
def microscope(target: InstamaticTarget) -> Iterator[Microscope]:
    with opened(target) as microscope:
        yield microscope


@pytest.fixture
def wandering(target: InstamaticTarget) -> Iterator[Microscope]:
    """One whose stage may go far."""
    with opened(
        target, limits={**CONFIG["limits"], "x_nm": (-FAR_NM, FAR_NM), "y_nm": (-FAR_NM, FAR_NM)}
    ) as microscope:
        yield microscope


@contextmanager
def opened(target: InstamaticTarget, **more: Any) -> Iterator[Microscope]:
    microscope = target.open(**more)
    try:
        microscope.execute(Blank(action_id="blank"))
        yield microscope
        microscope.stop()
    finally:
        target.close(microscope)


def setting(deadline_s: float = 60.0, **values: float | str) -> SetAxes:
    return SetAxes(action_id=f"set {values}", values=values, deadline_s=deadline_s)


class Stranger:
    """Another client of the server, as careless as instamatic's own."""

    def __init__(self, target: InstamaticTarget) -> None:
        self._socket = socket.create_connection(target.addresses()[0], 10.0)

    def ask(self, function: str, *arguments: Any, **named: Any) -> Any:
        self._socket.sendall(json.dumps({"func_name": function, "args": arguments, "kwargs": named}).encode())
        return json.loads(self._socket.recv(1024))[1]

    def close(self) -> None:
        self._socket.close()


def test_it_conforms_as_far_as_it_goes_without_frames(target: InstamaticTarget) -> None:
    with opened(target) as microscope:
        microscope.execute(setting(x_nm=1500.0, y_nm=-2500.0))  # the simulator begins anywhere
    report = conformed(target, Conditions(), hasty=Otherwise(target, **HASTE))
    passed = names(report, "passed")
    needed = {
        "out_of_range", "unknown_control", "concurrent_clients", "mute_server", "call_after_timeout", "teardown",
        "read_back", "stage_tilt", "blank", "stop_latency",
    }  # fmt: skip
    assert passed == needed, report.table()


def test_axes_come_to_where_they_are_sent_in_house_units(target: InstamaticTarget, microscope: Microscope) -> None:
    state = microscope.execute(setting(x_nm=1500.0, y_nm=-2500.0, alpha_deg=2.0, beam_shift_y_nm=100.0, spot_index=3.0))
    assert all(state.axes[name].is_reached for name in ("x_nm", "y_nm", "alpha_deg", "beam_shift_y_nm", "spot_index"))
    stranger = Stranger(target)
    try:
        assert stranger.ask("getStagePosition")[:2] == pytest.approx([1500, -2500], abs=50)
        assert stranger.ask("getBeamShift")[1] == 32_768 - 200
    finally:
        stranger.close()


def test_what_the_server_would_swallow_is_refused_and_nothing_moves(
    target: InstamaticTarget, microscope: Microscope
) -> None:
    microscope.execute(setting(x_nm=0.0, beam_shift_x_nm=0.0, beam_shift_y_nm=0.0, spot_index=1.0))
    before = microscope.read_state()
    absurd: tuple[dict[str, float | str], ...] = (
        {"x_nm": 1e12}, {"alpha_deg": 400.0}, {"spot_index": 99.0}, {"spot_index": 1.5}, {"beam_shift_x_nm": 1e9},
        {"screen": "sideways"},
    )  # fmt: skip
    for values in absurd:
        with pytest.raises(CommandRefused):
            microscope.execute(setting(**values))
    with pytest.raises(Unsupported):
        microscope.execute(setting(beta_deg=1.0))  # no limits were configured for it
    after = microscope.read_state()
    assert (after.stage, after.beam_shift_x_nm, after.axes) == (before.stage, before.beam_shift_x_nm, before.axes)
    stranger = Stranger(target)
    try:
        stranger.ask("setSpotSize", 99)
        assert stranger.ask("getSpotSize") == 99  # the server itself has no limits
        stranger.ask("setSpotSize", 1)
    finally:
        stranger.close()


def test_a_deflector_ends_where_its_counts_do(target: InstamaticTarget) -> None:
    wide = {**CONFIG["limits"], "beam_shift_x_nm": (-50_000, 50_000)}
    with opened(target, limits=wide) as microscope:
        with pytest.raises(CommandRefused, match="counts, outside 0 to 65535"):
            microscope.execute(setting(beam_shift_x_nm=20_000.0))
        assert microscope.outcome(setting(beam_shift_x_nm=20_000.0).action_id) == "not_started"


def test_a_move_can_be_stopped_and_blanks_at_once(wandering: Microscope) -> None:
    microscope, begun_nm = wandering, wandering.read_state().stage.x_nm
    errors: list[InstrumentError] = []

    def move() -> None:
        try:
            microscope.execute(setting(x_nm=FAR_NM, deadline_s=600.0))
        except InstrumentError as error:
            errors.append(error)

    moving = threading.Thread(target=move)
    moving.start()
    until(lambda: microscope.read_state().stage.x_nm > begun_nm + 1000 or not moving.is_alive(), "the move")
    microscope.stop()
    moving.join()
    assert [type(error) for error in errors] == [InstrumentFault]
    assert "stopped on the way" in str(errors[0])
    assert microscope.read_state().beam_blanked
    with pytest.raises(InstrumentFault, match="stopped"):
        microscope.execute(setting(x_nm=0.0))
    assert isinstance(microscope, Releasable)
    microscope.release()
    microscope.execute(setting(x_nm=0.0))


def test_a_move_that_takes_longer_than_its_deadline_is_a_fault(wandering: Microscope) -> None:
    with pytest.raises(InstrumentFault, match="deadline passed on the way"):
        wandering.execute(setting(y_nm=FAR_NM, deadline_s=0.2))
    wandering.execute(setting(y_nm=0.0))


def test_there_is_one_owner(target: InstamaticTarget, microscope: Microscope) -> None:
    with pytest.raises(InstrumentBusy, match="has an owner on this computer"):
        target.open()
    results: list[int] = []

    def read() -> None:
        results.append(sum(microscope.read_state().beam_blanked for _ in range(30)))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert results == [30, 30, 30]  # of one connection, from any thread: every answer is of its kind


def test_answers_of_the_wrong_kind_are_noticed(target: InstamaticTarget) -> None:
    """Two strangers make the server mix its answers: none of a wrong kind is taken, and the adapter says so."""
    ended = threading.Event()

    def hammer() -> None:
        while not ended.is_set():
            stranger = Stranger(target)
            try:
                while not ended.is_set():
                    stranger.ask("getScreenPosition")
            except (OSError, ValueError):
                continue  # it was given nothing, or half of another's answer
            finally:
                stranger.close()

    strangers = [threading.Thread(target=hammer) for _ in range(2)]
    with opened(target, answer_s=3.0) as microscope:
        for stranger in strangers:
            stranger.start()
        try:
            fault = until(lambda: fault_of_reading(microscope), "an answer that was not for us", every_s=0.0)
        finally:
            ended.set()
            for stranger in strangers:
                stranger.join()
        assert type(fault) is LinkLost
        assert microscope.execute(Blank(action_id="alone again")).beam_blanked


def fault_of_reading(microscope: Microscope) -> InstrumentError | None:
    try:
        assert isinstance(microscope.read_state().stage.x_nm, float)
    except InstrumentError as error:
        return error
    return None


def test_a_line_that_was_cut_is_taken_up_again_and_the_beam_can_be_blanked(target: InstamaticTarget) -> None:
    with FaultyLine(target.addresses()[0]) as line:
        microscope = target.open_at((line.address,), answer_s=3.0)
        try:
            line.cut()
            assert microscope.execute(Blank(action_id="blank")).beam_blanked
            line.fall_silent()
            with pytest.raises(LinkLost):
                microscope.stop()
            line.heal()
            microscope.stop()
            assert microscope.read_state().beam_blanked
        finally:
            target.close(microscope)


def test_a_lit_beam_does_not_move_and_there_are_no_frames(microscope: Microscope) -> None:
    microscope.execute(Unblank(action_id="on"))
    with pytest.raises(CommandRefused, match="blank it first"):
        microscope.execute(setting(x_nm=100.0))
    microscope.execute(Blank(action_id="off"))
    microscope.execute(Park(action_id="park", beam_shift_x_nm=10.0))
    assert microscope.read_state().beam_shift_x_nm == pytest.approx(10.0, abs=0.5)
    frame = AcquireFrame(
        action_id="frame",
        deadline_s=10,
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=1),
        scan=ScanPattern(field_of_view_nm=10, shape_px=(8, 8), dwell_time_us=1),
        mode="any",
    )
    with pytest.raises(Unsupported, match="no camera"):
        microscope.acquire(frame)
    with pytest.raises(CommandRefused):
        GuardedMicroscope(microscope, SafetyEnvelope()).acquire(frame)
    with pytest.raises(Unsupported):
        microscope.execute(RunProcedure(action_id="n", name="normalise"))


def test_a_server_that_speaks_pickle_is_not_spoken_to(tmp_path: Any) -> None:
    with InstamaticTarget(tmp_path, CONFIG, protocol="pickle") as pickling, pytest.raises(LinkLost):
        pickling.open(**HASTE)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"deflectors": {}}, "a deflector without a calibration"),
        ({"deflectors": {"beam_shift": {"matrix": ((1, 1), (1, 1))}}}, "loses a direction"),
        ({"limits": {"x_nm": (5, -5)}}, "not in order"),
    ],
)
def test_a_configuration_that_does_not_fit_opens_nothing(
    target: InstamaticTarget, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        target.open(**config)
