"""Where objects are dense: mean density by species, and a Gaussian process for its variation over the specimen."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import GammaPrior, LogNormalPrior

from policies.observation import Observation
from policies.quiet_torch import quiet_torch
from policies.schedule import last_refit

_HALF = 0.5  # added to counts before the logarithm
_PSEUDO_COUNT = 5.0
_FIRST_FIT = 6
_LEAST_AREA_NM2 = 10.0
State = dict[str, torch.Tensor]


def mean_densities(
    prior_per_nm2: np.ndarray, found_count: float, clean_area_nm2: float, species_counts: np.ndarray
) -> np.ndarray:
    """(S,) species per nm2: Gamma-Poisson for the sum (the guess is worth two objects), Dirichlet for the shares.

    `species_counts`: expected number of each species seen so far, confirmed or not.
    """
    guess = float(prior_per_nm2.sum())
    total = (2.0 + found_count) / (2.0 / guess + clean_area_nm2)
    shares = prior_per_nm2 / guess * _PSEUDO_COUNT + species_counts
    return total * shares / shares.sum()


class DensityMap:
    """Relative density exp(f): f a Matern-5/2 process on log((found + 1/2) / (expected + 1/2)), noise from counting.

    Length scale has a log-normal prior around 30 nm; the variance an exponential one, so without clustering it goes
    to 0 and the map is flat. Hyperparameters are refitted after 6, 8, 10, 13... fields: a function of the history.
    """

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def forget(self) -> None:
        """Drop cached fits (after a restore)."""
        self._states.clear()

    def relative(
        self, fields: Sequence[Observation], density_per_nm2: float, positions_nm: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(m,) mean and standard deviation of f at (m, 2) positions; zeros before the first fit."""
        usable = [o for o in fields if (o.value("clean_area_nm2") or 0.0) >= _LEAST_AREA_NM2]
        due = last_refit(len(usable), _FIRST_FIT, 1.3)
        if due == 0:
            return np.zeros(len(positions_nm)), np.zeros(len(positions_nm))
        if due not in self._states:
            self._states[due] = _fitted(_model(usable[:due], density_per_nm2))
        model = _model(usable, density_per_nm2)
        with quiet_torch(2), torch.no_grad():
            model.load_state_dict({**model.state_dict(), **self._states[due]})
            model.eval()
            posterior = model.posterior(torch.as_tensor(positions_nm / _UNIT_NM, dtype=torch.float64))
            centre = float(model.state_dict()["mean_module.raw_constant"])
            mean = posterior.mean[:, 0].numpy() - centre
            std = posterior.variance[:, 0].clamp_min(0.0).sqrt().numpy()
        return mean, std


_UNIT_NM = 100.0


def _model(fields: Sequence[Observation], density_per_nm2: float) -> SingleTaskGP:
    x = np.array([[o.point["x_nm"], o.point["y_nm"]] for o in fields], dtype=np.float64) / _UNIT_NM
    found = np.array([max(o.value("found") or 0.0, 0.0) for o in fields])
    expected = np.array([o.value("clean_area_nm2") or 0.0 for o in fields]) * density_per_nm2
    y = np.log((found + _HALF) / (expected + _HALF))
    noise = 1.0 / (expected + _HALF)
    kernel = ScaleKernel(
        MaternKernel(nu=2.5, lengthscale_prior=LogNormalPrior(log(30.0 / _UNIT_NM), 0.4)),
        outputscale_prior=GammaPrior(1.0, 2.0),
    )
    kernel.base_kernel.lengthscale = 30.0 / _UNIT_NM
    kernel.outputscale = 0.3
    with quiet_torch(0):
        return SingleTaskGP(
            torch.as_tensor(x),
            torch.as_tensor(y)[:, None],
            train_Yvar=torch.as_tensor(noise)[:, None],
            covar_module=kernel.double(),
            outcome_transform=None,
        )


def _fitted(model: SingleTaskGP) -> State:
    with quiet_torch(1):
        try:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        except ModelFittingError:
            return {}
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if not name.endswith("noise_covar.noise")
    }
