"""For notebooks: open a spec, run policies on simulated or replayed instruments, compare them, look at what came of it.

The loop, the wiring and the record are those of every other run; nothing here decides anything.
"""

from workflows.notebook.candidate import Candidate
from workflows.notebook.comparison import Comparison
from workflows.notebook.laboratory import Laboratory
from workflows.notebook.recorded import Recorded
from workflows.notebook.table import Table
from workflows.notebook.trial import Step, Trial

__all__ = ["Candidate", "Comparison", "Laboratory", "Recorded", "Step", "Table", "Trial"]
