"""What is left of an adapter after it was closed: nothing."""

from __future__ import annotations

from instruments.conformance.bench import Bench
from instruments.conformance.check import Check, Result, failed, passed


def _teardown(bench: Bench) -> Result:
    left = bench.left_behind()
    if left:
        return failed(f"still there after closing: {', '.join(sorted(left))}")
    return passed("no thread, process, socket or shared memory is left after closing")


TEARDOWN = Check(
    name="teardown",
    does="blanks and closes the instrument, closes it again, and looks for threads, processes, sockets and shared "
    "memory that stay",
    cure="give the adapter a close() that ends and joins all that opening and using it started; called again it does "
    "nothing",
    run=_teardown,
)
