"""Programs in another Python that an adapter speaks to: given deadlines, stopped from beside, killed if need be.

`server` is what runs there, `process` the end that stays here; `protocol` carries messages between them.
`device_server` starts one on another computer, for whoever proves by `handshake` that he may.
"""

from instruments.workers.process import Address, Program, Worker

__all__ = ["Address", "Program", "Worker"]
