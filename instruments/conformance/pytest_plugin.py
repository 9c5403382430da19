"""The kit as tests of a stranger's own suite: a target in, one test for each check out.

    # conftest.py
    pytest_plugins = ["instruments.conformance.pytest_plugin"]

    # test_mine.py
    @pytest.fixture(scope="module")
    def conformance_target():
        return AdapterTarget("mine", {"host": "127.0.0.1"})

    def test_conformance(conformance_finding):
        conformance_finding.assert_conforms()

The fixture `conformance_conditions` may be given too. What the instrument cannot is skipped with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from instruments.conformance.bench import Bench
from instruments.conformance.check import Check, judged
from instruments.conformance.conditions import Conditions
from instruments.conformance.findings import Finding
from instruments.conformance.kit import CHECKS
from instruments.conformance.owner import Hung, attempted
from instruments.conformance.target import Target
from instruments.errors import InstrumentError


@dataclass(frozen=True, slots=True)
class ConformanceFinding:
    """The finding of one check, for a test to stand or fall by."""

    finding: Finding

    def assert_conforms(self) -> None:
        """Fail with the finding's words, skip with its reason; a declared quirk passes."""
        finding = self.finding
        if finding.verdict == "skipped":
            pytest.skip(f"{finding.check}: {finding.found}")
        if finding.verdict == "failed":
            numbers = "".join(f"\n  {one}" for one in finding.measured)
            pytest.fail(f"{finding.check}: {finding.found}{numbers}\n  -> {finding.cure}", pytrace=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each check, for every test that asks for a finding."""
    if "conformance_check" in metafunc.fixturenames:
        metafunc.parametrize("conformance_check", CHECKS, ids=[check.name for check in CHECKS])


@pytest.fixture(scope="module")
def conformance_conditions() -> Conditions:
    """What the kit may ask of the instrument; give your own where these do not fit."""
    return Conditions()


@pytest.fixture(scope="module")
def conformance_bench(conformance_target: Target, conformance_conditions: Conditions) -> Iterator[Bench]:
    """The instrument on the bench, opened once for all checks of a module."""
    with Bench(conformance_target, conformance_conditions) as bench:
        error = attempted(lambda: bench.shots).exception()
        if isinstance(error, InstrumentError | Hung):
            pytest.fail(f"{conformance_target.name} cannot be opened: {type(error).__name__}: {error}", pytrace=False)
        if error is not None:
            raise error
        yield bench


@pytest.fixture
def conformance_finding(conformance_check: Check, conformance_bench: Bench) -> ConformanceFinding:
    """What one check finds."""
    return ConformanceFinding(judged(conformance_check, conformance_bench))
