"""What a flow run is called at Prefect: after what it does."""

from __future__ import annotations

from typing import Final

EXPERIMENT: Final = "experiment"
CALIBRATE: Final = "calibrate"
SURVEY: Final = "survey"
SUBMIT: Final = "submit"


def flow_name(objective: str) -> str:
    """The flow of an experiment with that objective.

    >>> flow_name("focus"), flow_name("defect_census")
    ('calibrate', 'experiment')
    """
    return CALIBRATE if objective == "focus" else EXPERIMENT
