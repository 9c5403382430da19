"""Programs in another Python that an adapter speaks to: given deadlines, stopped from beside, killed if need be.

`server` is what runs there, `process` the end that stays here; `protocol` carries messages between them.
"""

from instruments.workers.process import Program, Worker

__all__ = ["Program", "Worker"]
