"""The Gaussian process of the `bayesian` policy: botorch's SingleTaskGP over the encoded space, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood

from policies.quiet_torch import quiet_torch

# The prior standard deviation is a fixed part of the range seen. The standard deviation of the values would shrink
# with every look at the maximum, until unexplored ground seemed sure to be poor.
_RANGE_STDS = 2.0

State = dict[str, torch.Tensor]


class Surrogate:
    """Posterior of one outcome given (n, d) codes, values and standard deviations.

    Values are scaled here. Noise is taken from the standard deviations where all are positive, learned
    otherwise. `state` are hyperparameters from `fitted_state`; without them the model's defaults.
    """

    def __init__(self, codes: np.ndarray, values: np.ndarray, stds: np.ndarray, state: State | None = None) -> None:
        self.centre = float(np.mean(values))
        self.scale = float(np.ptp(values)) / _RANGE_STDS or 1.0
        self._codes = torch.as_tensor(codes, dtype=torch.float64)
        self.standard = torch.as_tensor((values - self.centre) / self.scale, dtype=torch.float64)[:, None]
        known = bool(np.all(stds > 0))
        noise = torch.as_tensor((stds / self.scale) ** 2, dtype=torch.float64)[:, None].clamp_min(1e-8)
        with quiet_torch(0):
            self.model = SingleTaskGP(
                self._codes, self.standard, train_Yvar=noise if known else None, outcome_transform=None
            )
            if state is not None:
                self.model.load_state_dict({**self.model.state_dict(), **state})
            self.model.eval()

    def fitted_state(self) -> State:
        """Hyperparameters of largest marginal likelihood (with botorch's priors); the defaults if the fit fails."""
        with quiet_torch(1):
            likelihood = ExactMarginalLogLikelihood(self.model.likelihood, self.model)
            try:
                fit_gpytorch_mll(likelihood)
            except ModelFittingError:
                return {}
        data = ("noise_covar.noise",) if self.has_known_noise else ()
        return {
            name: tensor.detach().clone()
            for name, tensor in self.model.state_dict().items()
            if not any(name.endswith(part) for part in data)
        }

    @property
    def has_known_noise(self) -> bool:
        """Whether the noise came with the observations."""
        return type(self.model.likelihood).__name__ == "FixedNoiseGaussianLikelihood"

    @property
    def noise(self) -> float:
        """Typical standard deviation of one measurement, in the outcome's unit."""
        return float(self.model.likelihood.noise.detach().mean().sqrt()) * self.scale

    def predict(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noise-free outcome at (m, d) codes, in the outcome's unit."""
        with quiet_torch(2), torch.no_grad():
            posterior = self.model.posterior(torch.as_tensor(codes, dtype=torch.float64))
            mean = posterior.mean[:, 0].numpy() * self.scale + self.centre
            std = posterior.variance[:, 0].clamp_min(1e-18).sqrt().numpy() * self.scale
        return mean, std

    def hyperparameters(self) -> dict[str, Any]:
        """Length scales in fractions of each bound range, and the noise in standard units."""
        kernel = self.model.covar_module
        base = getattr(kernel, "base_kernel", kernel)
        scales = base.lengthscale.detach().reshape(-1)
        noise = self.model.likelihood.noise.detach()
        return {
            "length_scale_fractions": [round(float(s), 6) for s in scales],
            "noise_std_fraction": round(float(noise.mean().sqrt()), 6),
        }
