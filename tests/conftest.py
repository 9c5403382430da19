"""What every test may rely on: one thread, no telemetry, a private Prefect home, the same random draws each time."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

# Most of what lives here lives to the end: to look for garbage as often as small programs do takes a tenth of the time.
gc.set_threshold(100_000, 50, 50)

# Before anything imports torch or prefect; subprocesses of tests inherit all of it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# Reports of small runs need no measured image beside them: tests that want one take the folder from `real_data`.
# (Under a name of its own, for the processes of pytest-xdist inherit what the first has changed.)
if "STEMPILOT_REAL_DATA" in os.environ:
    os.environ["STEMPILOT_TESTS_REAL_DATA"] = os.environ.pop("STEMPILOT_REAL_DATA")
_prefect_home = tempfile.TemporaryDirectory(prefix="stempilot-prefect-", ignore_cleanup_errors=True)
os.environ["PREFECT_HOME"] = _prefect_home.name
atexit.register(_prefect_home.cleanup)

pytest_plugins = ["instruments.conformance.pytest_plugin", "tests.catalogues", "tests.postgresql"]

settings.register_profile("house", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("house")
# Numbers out of the sources of whatever happens to be loaded are no examples: they would differ between processes.
providers._get_local_constants = lambda: providers._local_constants

_TESTS = Path(__file__).parent
_ORDER = ("unit", "property", "reference", "integration", "browser", "faults")
# A file goes to one process whole: these take longest, and come first of what is no unit test, not last and alone.
_LONGEST = (
    "integration/test_serve.py", "faults/test_kill_and_resume.py", "integration/test_notebooks.py",
    "browser/test_page.py", "faults/test_served_kills.py", "faults/test_queue_race.py",
    "integration/instruments/test_nion.py", "integration/instruments/test_tango.py",
    "integration/instruments/test_merlin.py", "integration/instruments/test_ophyd.py",
    "integration/test_engines_and_questions.py", "integration/test_deployment_runs.py", "property/test_api_contract.py",
    "faults/test_interrupt.py", "faults/test_storage_crash.py", "integration/test_worker.py",
    "integration/test_local_differences.py", "faults/test_instrument_kills.py", "integration/test_calibrate.py",
    "integration/test_run_to_record.py", "faults/test_survey_kill.py", "integration/test_embedded_instrument.py",
    "integration/test_conformance_kit.py", "integration/test_conformance_lines.py", "property/test_simulator_laws.py",
    "property/test_queue_model.py", "integration/test_policy_searches.py", "faults/test_watchdog.py",
    "integration/test_schedule.py", "integration/test_report.py", "browser/test_report.py",
)  # fmt: skip


# In CI a test of these rooms may fail once, for it waits for other processes on a busy machine. It is listed
# as RERUN, and somebody has to look into it (docs/decisions/0061-second-attempts.md).
_OF_PROCESSES = ("integration", "browser", "faults")
_SECOND_ATTEMPTS = 3


def _rank(item: pytest.Item) -> tuple[int, int, bool]:
    try:
        path = item.path.relative_to(_TESTS)
    except ValueError:
        return 0, 0, False  # a doctest of a package
    if path.as_posix() in _LONGEST:
        return 1, _LONGEST.index(path.as_posix()), item.get_closest_marker("ends_the_shared") is not None
    room = path.parts[0]
    return (_ORDER.index(room) if room in _ORDER else len(_ORDER)), len(_LONGEST), False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, then the longest files; otherwise the random order stays. In CI some have a second attempt."""
    items.sort(key=_rank)
    if os.environ.get("CI") == "true":
        for item in items:
            if any(item.path.is_relative_to(_TESTS / room) for room in _OF_PROCESSES):
                item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=5))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """More second attempts than chance explains are a failure, however they ended."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a process of pytest-xdist
        return
    again = {report.nodeid for report in reporter.stats.get("rerun", ())}
    if len(again) > _SECOND_ATTEMPTS and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(again)} tests passed only when tried again; {_SECOND_ATTEMPTS} may", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_finish() -> None:
    """What was loaded and collected stays: nobody has to look through it for garbage again."""
    gc.freeze()


@pytest.fixture(scope="session")
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where images of lattices are computed once, for all tests and all processes of this run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "image-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of measured files, or a skip that says how to name one."""
    named = os.environ.get("STEMPILOT_TESTS_REAL_DATA")
    if not named:
        pytest.skip("STEMPILOT_REAL_DATA does not name a folder of measured files")
    folder = Path(named).resolve()
    if not folder.is_dir():
        pytest.fail(f"STEMPILOT_REAL_DATA={named} is not a folder")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of an installed Chromium, or a skip; where CI=true its absence is a failure."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI=true, but Chromium is not installed")
    if found is None:
        pytest.skip("Chromium is not installed")
    return found
