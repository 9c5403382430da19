"""`validate` and `submit` give one answer: valid if and only if it is taken, with the same faults, storing nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.orchestrator.api.serving import V1, Service, serve, submission, upload

_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**6), st.floats(-10, 1e12, allow_nan=False), st.text(max_size=5),
    st.just([]), st.just({}), st.just("2020-01-01T00:00:00Z"), st.just("2199-01-01T00:00:00Z"), st.just(10**7),
)  # fmt: skip
# Places of a spec that decide at different depths: the form, the search space, names, the instrument, the first frame.
_PLACES = (
    "spec.name", "spec.specimen.thickness_nm", "spec.specimen.material", "spec.instrument.name",
    "spec.instrument.config.width_nm", "spec.instrument.optics.beam_energy_ev", "spec.search_space.mode.choices",
    "spec.search_space.x_nm.low", "spec.search_space.dwell_time_us", "spec.objective.name",
    "spec.objective.options.determinable", "spec.policy.name", "spec.policy.options.field_of_view_nm",
    "spec.budget.electrons", "spec.budget.frames", "spec.safety.max_current_pa", "spec.stop", "spec.labels",
    "spec.unknown", "seed", "priority", "hold", "not_before", "not_after",
)  # fmt: skip


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, Any]]]:
    """A service with the whole check, and a submission it takes."""
    service = serve(tmp_path_factory.mktemp("validation"))
    now = service.catalogue.now()
    service.catalogue.now = lambda: now  # faults name the time
    yield service, submission(upload(service.client()))
    service.catalogue.close()


def _with(body: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    *parents, last = place.split(".")
    node = changed
    for part in parents:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    node[last] = value
    return changed


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(_PLACES), _VALUES, max_size=2))
@example({})
@example({"spec.budget.electrons": 1.0})
@example({"spec.objective.name": "haruspicy"})
@example({"spec.search_space.mode.choices": ["ronchigram"]})
@example({"spec.policy.options.field_of_view_nm": 10**6})
@example({"spec.safety.max_current_pa": 1e9})
@example({"spec.instrument.config.width_nm": -1})
@example({"priority": 10**7})
@example({"not_after": "2020-01-01T00:00:00Z"})
@example({"not_after": "2020-01-01T00:00:00Z", "spec.objective.name": "haruspicy"})
@example({"not_before": "2199-01-01T00:00:00Z", "not_after": "2199-01-01T00:00:00Z"})
@example({"not_before": "2199-01-01T00:00:00Z"})
@example({"spec.labels": {"priority": "high"}, "priority": 5})
def test_valid_if_and_only_if_taken(asked: tuple[Service, dict[str, Any]], changes: dict[str, Any]) -> None:
    service, body = asked
    for place, value in changes.items():
        body = _with(body, place, value)
    client, before = service.client(), len(service.catalogue.experiments())
    answer = client.post(f"{V1}/experiments:validate", json=body)
    assert len(service.catalogue.experiments()) == before
    taken = client.post(f"{V1}/experiments", json=body)
    assert taken.status_code in (201, 422), taken.text
    is_valid = answer.status_code == 200 and answer.json()["valid"]
    assert is_valid == (taken.status_code == 201), (answer.text, taken.text)
    if answer.status_code == 200 and not is_valid:
        refused = taken.json()
        assert answer.json()["errors"] == (refused.get("errors") or [{"detail": refused["detail"]}])


def test_what_was_taken_is_in_the_queue_once(asked: tuple[Service, dict[str, Any]]) -> None:
    """Of this and of everything above, whatever came first."""
    service, body = asked
    for _ in range(2):
        assert service.client().post(f"{V1}/experiments", json=body).status_code == 201
    entries = service.queue.entries(limit=500)
    assert {entry.id for entry in entries} == {row.id for row in service.catalogue.experiments()}
    assert len({entry.seq for entry in entries}) == len(entries) > 1
