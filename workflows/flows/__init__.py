"""Flows at a Prefect server: they show and schedule; what is decided is decided in the queue, the loop and the journal.

Only modules of this folder and `prefect_engine` import Prefect, and only when a flow is run: it takes seconds.
"""

__all__ = ()
