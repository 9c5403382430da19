"""What `focus_series` asks for next: upwards first, then once further or longer, then the slopes, or it gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policies import GaveUp, InvalidOption, Observation, Policy, SearchSpace, Suggestion, create

SPACE = SearchSpace.from_dict({"defocus_nm": {"low": -20, "high": 20, "resolution": 0.5}})
SERIES = {"low_nm": -8.0, "high_nm": 8.0, "count": 5, "dwell_time_us": 2.0}
Answer = Callable[[list[Suggestion]], dict[str, tuple[float, float]] | str]


def series(**options: Any) -> Policy:
    return create("focus_series", SPACE, seed=1, **{**SERIES, **options})


def run(policy: Policy, answer: Answer) -> tuple[list[Suggestion], str]:
    """Until it stops; `answer` gives outcomes after each frame, or a status."""
    made: list[Suggestion] = []
    while (stop := policy.should_stop()) is None:
        suggestion = policy.suggest()[0]
        made.append(suggestion)
        outcomes = answer(made)
        status: Any = outcomes if isinstance(outcomes, str) else "done"
        policy.ingest(
            [
                Observation(
                    suggestion_id=suggestion.id,
                    point=suggestion.point,
                    outcomes={} if isinstance(outcomes, str) else outcomes,
                    status=status,
                )
            ]
        )
        assert len(made) < 40
    return made, stop


def peak_at(best_nm: float, std_nm: float) -> Answer:
    def answer(made: list[Suggestion]) -> dict[str, tuple[float, float]]:
        if len(made) < 4:
            return {"sharpness": (0.1, 0.05)}
        return {"sharpness": (0.1, 0.05), "best_defocus_nm": (best_nm, std_nm), "focus_width_nm": (3.4, 0.0)}

    return answer


def defoci(made: list[Suggestion]) -> list[float]:
    return [float(suggestion.point["defocus_nm"]) for suggestion in made]


def test_upwards_and_done_when_it_is_known_well_enough() -> None:
    made, stop = run(series(), peak_at(1.3, 0.2))
    assert defoci(made) == [-8.0, -4.0, 0.0, 4.0, 8.0]
    assert stop == "focus found at 1.30 nm of defocus, standard error 0.20 nm, 5 frames"
    assert not isinstance(stop, GaveUp)


def test_the_slopes_until_the_error_is_small_or_there_were_enough() -> None:
    made, stop = run(series(refine_count=4), peak_at(1.0, 0.6))
    assert defoci(made)[5:] == [-2.5, 4.5, -2.5, 4.5]
    assert "9 frames" in stop
    assert made[5].prediction == {"best_defocus_nm": (1.0, 0.6)}


@pytest.mark.parametrize(("best_nm", "further"), [(11.0, [12.0, 16.0, 20.0]), (-11.0, [-20.0, -16.0, -12.0])])
def test_once_further_on_the_side_of_the_best_and_upwards(best_nm: float, further: list[float]) -> None:
    made, stop = run(series(), peak_at(best_nm, 0.2))
    assert defoci(made)[5:] == further
    assert "outside -8 to 8 nm" in made[5].reason["why"]
    assert not isinstance(stop, GaveUp)


def test_gives_up_where_the_best_is_beyond_all_bounds() -> None:
    _, stop = run(series(), peak_at(25.0, 0.2))
    assert isinstance(stop, GaveUp)
    assert stop == "no focus found: the best is outside -8 to 20 nm of defocus"


def test_once_longer_where_nothing_was_seen() -> None:
    made, stop = run(series(dose_factor=4.0), lambda made: {"sharpness": (0.0, 1.0)})
    assert defoci(made) == [-8.0, -4.0, 0.0, 4.0, 8.0] * 2
    assert [suggestion.point["dwell_time_us"] for suggestion in made] == [2.0] * 5 + [8.0] * 5
    assert isinstance(stop, GaveUp)
    assert "nothing sharper than noise from -8 to 8 nm" in stop


def test_not_longer_where_that_is_not_wanted() -> None:
    made, stop = run(series(dose_factor=1.0), lambda made: {"sharpness": (0.0, 1.0)})
    assert len(made) == 5
    assert isinstance(stop, GaveUp)


def test_a_refused_second_series_is_not_asked_for_again() -> None:
    made, stop = run(series(), lambda made: {"sharpness": (0.0, 1.0)} if len(made) <= 5 else "refused")
    assert len(made) == 6
    assert isinstance(stop, GaveUp)
    assert stop.endswith("what was to come next was refused")


def test_lost_frames_are_not_a_peak() -> None:
    _, stop = run(series(), lambda made: "failed")
    assert isinstance(stop, GaveUp)
    assert stop == "no focus found: none of 10 frames could be measured"


@pytest.mark.parametrize("lost", ["failed", "unknown", {}], ids=["failed", "unknown", "not measurable"])
def test_a_peak_beside_the_frames_that_were_measured_is_no_focus(lost: str | dict[str, tuple[float, float]]) -> None:
    """The frame at +8 nm was taken and lost, so nothing says that the sharpness falls again above +4 nm."""
    seen = peak_at(6.0, 0.2)
    made, stop = run(series(), lambda made: lost if len(made) == 5 else seen(made))
    assert defoci(made) == [-8.0, -4.0, 0.0, 4.0, 8.0]
    assert isinstance(stop, GaveUp)
    assert stop == "no focus found: the best is outside -8 to 4 nm of defocus"


def test_a_lost_last_frame_does_not_take_the_focus_away() -> None:
    seen = peak_at(1.3, 0.2)
    _, stop = run(series(), lambda made: {} if len(made) == 5 else seen(made))
    assert stop == "focus found at 1.30 nm of defocus, standard error 0.20 nm, 4 frames"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low_nm": 8.0, "high_nm": -8.0}, "must be in order"),
        ({"high_nm": 30.0}, "-20 to 20 nm of defocus"),
        ({"count": 2}, "count 2 must be at least 3"),
        ({"dose_factor": 0.5}, r"dose_factor 0\.5 at least 1"),
        ({"target_std_nm": 0.0}, "above 0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        series(**options)


def test_never_more_frames_than_it_says() -> None:
    policy = series(count=4, refine_count=3)
    made, _ = run(policy, peak_at(11.0, 5.0))
    assert len(made) <= policy.most_frames  # pyright: ignore[reportAttributeAccessIssue]
