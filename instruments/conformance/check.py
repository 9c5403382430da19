"""One check, and how what happens in it becomes a verdict. Checks live in `checks`; `kit` runs them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from instruments.conformance.bench import Bench, CannotJudge, Halted
from instruments.conformance.findings import Finding, Measured, Verdict
from instruments.conformance.frames import Shot
from instruments.conformance.owner import Hung, attempted
from instruments.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Result:
    """What a check saw: whether that is as it should be, in words, and the numbers."""

    is_right: bool
    found: str
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that every instrument must do, and how it is tried.

    `shots` are the exposures it needs; they are shared with other checks. A check that `may_be_quirk` is not failed
    by an instrument that declares a quirk beginning with the check's name and a colon.
    """

    name: str
    does: str
    cure: str
    run: Callable[[Bench], Result]
    shots: tuple[Shot, ...] = ()
    may_be_quirk: bool = False
    may_expose: bool = False  # where the instrument does what it should refuse


def passed(found: str, *measured: Measured) -> Result:
    """As it should be."""
    return Result(True, found, measured)


def failed(found: str, *measured: Measured) -> Result:
    """Not as it should be."""
    return Result(False, found, measured)


def judged(check: Check, bench: Bench) -> Finding:
    """The verdict of one check. ConfigurationError and Halted go on: there is no instrument then."""
    verdict, result = _seen(attempted(lambda: check.run(bench)))
    quirk = _quirk(check, bench) if verdict == "failed" else None
    found = result.found if quirk is None else f"{result.found} (declared: {quirk})"
    return Finding(
        check=check.name,
        verdict=verdict if quirk is None else "declared quirk",
        does=check.does,
        exposes=bool(check.shots),
        found=found,
        cure=check.cure,
        measured=result.measured,
    )


def _seen(attempt: Future[Result]) -> tuple[Verdict, Result]:
    """What came of a check; an adapter under test may raise anything, and that is a finding too."""
    match attempt.exception():
        case None:
            result = attempt.result()
            return ("passed" if result.is_right else "failed"), result
        case CannotJudge() as reason:
            return "skipped", passed(str(reason))
        case ConfigurationError() | Halted() as error:
            raise error
        case Hung() as error:
            return "failed", failed(str(error))
        case error:
            return "failed", failed(f"raised {type(error).__name__}: {error}")


def _quirk(check: Check, bench: Bench) -> str | None:
    """The instrument's own words on what this check found, if it may say any."""
    if not check.may_be_quirk:
        return None
    start = f"{check.name}:"
    quirks = bench.capabilities.quirks
    return next((quirk.removeprefix(start).strip() for quirk in quirks if quirk.startswith(start)), None)
