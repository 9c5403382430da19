"""Some of the cases of `benchmarks.window_errors`: the stated error holds, `auto` leaves windows where it must."""

import pytest

from benchmarks.window_errors import Exposed, checked
from simulation import AccuracyMissed


def test_the_stated_error_is_no_smaller_than_the_true_one():
    row = checked(Exposed("twisted", 2, 80e3, 0.0, "narrow", 0.1), 8)
    assert row["holds"], row
    assert row["stated"] <= 0.1, row


def test_auto_does_without_windows_that_cannot_be_good_enough():
    with pytest.warns(AccuracyMissed, match=r"no nearer to multislice than 0\.\d+ .* 0\.05 was asked for"):
        row = checked(Exposed("layer", 1, 80e3, 20.0, "wide", 0.05), 8)
    assert row["holds"], row
    assert row["stated"] > 0.05, row
    assert row["auto"] != "windowed", row
    assert row["auto_holds"], row
