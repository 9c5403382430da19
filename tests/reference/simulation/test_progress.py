"""What is told of an image while it is made, how it is stopped, and that a stopped simulator goes on."""

import io
import multiprocessing
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field

import ase
import numpy as np
import pytest

from instruments.optics import Coherence, Optics
from simulation import AnnularDetector, Cancelled, FrozenPhonons, GridScan, Simulator
from simulation.progress import Bar, Meter, Standing, bar_for_a_person, batches, reporting, steps

OPTICS = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25)
SCAN = GridScan(0, 0, 0.8, 0.8, (6, 6))
HAADF = {"haadf": AnnularDetector(60, 100)}


def simulator(method, **settings):
    unit = ase.Atoms("AuC", positions=[[1, 1, 1], [2.5, 3, 3]], cell=(4, 4, 4), pbc=True)
    atoms = unit * (4, 4, 1)
    if method == "local_difference":
        atoms.numbers[6] = 47
    return Simulator(atoms, method=method, sampling_nm=0.02, device="cpu", **settings)


@dataclass
class Heard:
    """Keeps what it is told; the listener that gives up after some of it."""

    gives_up_after: int = 10**9
    told: list[Standing] = field(default_factory=list)
    ended: int = 0

    def advance(self, standing: Standing) -> None:
        if len(self.told) >= self.gives_up_after:
            raise KeyboardInterrupt
        self.told.append(standing)

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize(
    ("method", "told_of"),
    [
        ("multislice", {"slices of the potential", "probes"}),
        ("prism", {"slices of the potential", "plane waves", "probes"}),
        ("periodic", {"slices of the potential", "Bloch vectors"}),
        ("partitioned_prism", {"plane waves", "check against multislice: probes"}),
        ("local_difference", {"Bloch vectors", "check against multislice: probes"}),
        ("windowed", {"probes", "check against multislice: probes"}),
        ("incoherent", {"probes"}),
    ],
)
def test_every_method_tells_and_can_be_given_up_anywhere(method, told_of):
    """Given up at any place, a simulator makes the same image afterwards as a fresh one."""
    settings = {"accuracy": 10.0, "interpolation": 2 if method == "partitioned_prism" else 1}
    heard = Heard()
    with reporting(heard):
        expected = simulator(method, **settings).image(OPTICS, SCAN, HAADF)
    assert {standing.what for standing in heard.told} >= told_of
    assert heard.ended == 1
    assert all(0 <= standing.done <= standing.total for standing in heard.told)
    last = [standing for standing in heard.told if standing.what in ("probes", "Bloch vectors")][-1]
    assert last.done >= last.total - 1
    again = simulator(method, **settings)
    for count in sorted({0, 1, len(heard.told) // 2, len(heard.told) - 1}):
        given_up = Heard(count)
        with reporting(given_up), suppress(KeyboardInterrupt):
            again.image(OPTICS, SCAN, HAADF)
        assert given_up.ended == 1
        assert len(given_up.told) <= count
    np.testing.assert_array_equal(again.image(OPTICS, SCAN, HAADF)["haadf"], expected["haadf"])


def test_an_event_cancels_from_another_thread():
    asked, heard = threading.Event(), Heard()
    asked.set()
    made = simulator("multislice")
    with reporting(heard, cancel=asked), pytest.raises(Cancelled, match="ask for it again"):
        made.image(OPTICS, SCAN, HAADF)
    assert heard.told == []
    asked.clear()
    with reporting(heard, cancel=asked):
        assert made.image(OPTICS, SCAN, HAADF)["haadf"].shape == (6, 6)


def test_loops_around_loops_are_named_and_counted():
    heard = Heard()
    with reporting(heard):
        made = simulator("multislice", phonons=FrozenPhonons(2, 0.01), coherence=Coherence(focal_spread_nm=2.0))
        made.image(OPTICS, SCAN, HAADF)
    inner = [standing for standing in heard.told if standing.what.endswith("probes")]
    assert {standing.what.partition(": ")[0] for standing in inner} == {"configurations 1/2", "configurations 2/2"}
    assert "configurations 2/2: defoci 1/" in inner[-1].what or "defoci" in inner[-1].what
    fractions = [standing.fraction for standing in inner]
    assert 0 <= fractions[0] < fractions[-1] <= 1


@dataclass
class Clock:
    """Time that passes when told to."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_time_left_is_reckoned_from_what_is_done():
    """Three configurations of 10 s each, every one four batches of 2.5 s."""
    clock = Clock()
    meter = Meter(None, clock=clock)
    left_s = []
    with meter.stage("configurations", 3) as outer:
        for _ in range(3):
            with meter.stage("probes", 8) as inner:
                inner.step = 2
                for _ in range(4):
                    left_s.append(meter.standing().left_s)
                    clock.now_s += 2.5
                    inner.finish()
            outer.finish()
        assert meter.standing().fraction == 1
    assert left_s[0] is None
    assert left_s[1:] == pytest.approx([27.5 - 2.5 * step for step in range(11)])


def test_a_bar_comes_late_is_redrawn_seldom_and_leaves_nothing():
    clock, stream = Clock(10.0), io.StringIO()
    bar = Bar(stream, clock=clock)
    for elapsed_s in (0.0, 1.9):
        bar.advance(Standing("probes", 1, 8, 1 / 8, elapsed_s, 5.0))
    assert stream.getvalue() == ""
    for _ in range(3):
        bar.advance(Standing("probes", 4, 8, 0.5, 3.0, 3.0))
    assert stream.getvalue() == "\rprobes 4/8 [==========..........] 50 %, 0:03 left"
    bar.end()
    *_, blank, nothing = stream.getvalue().split("\r")
    assert blank.strip() == nothing == ""
    assert len(blank) == len("probes 4/8 [==========..........] 50 %, 0:03 left")


def test_outside_an_image_nobody_is_told():
    heard = Heard()
    with reporting(heard):
        assert list(batches(5, 2, "probes")) == [0, 2, 4]
        assert list(steps(["a", "b"], "letters")) == ["a", "b"]
    assert heard.told == []


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


def test_only_a_person_at_a_terminal_is_shown_a_bar(monkeypatch):
    """Not a pipe, not another thread, not a process of a pool."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert bar_for_a_person() is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(bar_for_a_person(), Bar)
    found = [Bar()]
    other = threading.Thread(target=lambda: found.append(bar_for_a_person()))
    other.start()
    other.join()
    assert found[-1] is None
    monkeypatch.setattr(multiprocessing.current_process(), "name", "ForkPoolWorker-1")
    assert bar_for_a_person() is None
