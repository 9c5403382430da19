"""Torch as a policy may use it: one thread, no global randomness left behind, none of botorch's advice as warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from botorch.exceptions.warnings import BotorchWarning
from linear_operator.utils.warnings import NumericalWarning


@contextmanager
def quiet_torch(seed: int) -> Iterator[None]:
    """Inside: one thread (sums keep their order, workers do not fight), a seeded generator; outside: as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", BotorchWarning)
            warnings.simplefilter("ignore", NumericalWarning)
            warnings.filterwarnings("ignore", message="`torch.jit", category=Warning)
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
