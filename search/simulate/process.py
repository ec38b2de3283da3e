"""Functions drawn from a Gaussian process that was fitted to records: each draw is one world that they allow.

The kernel is a linear one plus a squared exponential on standardised features plus noise, its scales by marginal
likelihood. A draw is made by pathwise conditioning (Wilson et al., "Efficiently sampling functions from Gaussian
process posteriors", 2020): a prior function of random Fourier features, corrected to pass through the data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.model_selection import GroupKFold

Floats = NDArray[np.float64]
FREQUENCIES = 512
FOLDS = 10


class Process:
    """A Gaussian process fitted to rows and one target.

    Args:
        X: features, shape (n, columns).
        y: target, shape (n,).
        least_noise: the smallest standard deviation of the noise, in units of the target's own.
    """

    def __init__(self, X: Floats, y: Floats, *, least_noise: float = 0.1) -> None:
        self._centre, self._scale = X.mean(axis=0), X.std(axis=0)
        self._scale[self._scale < 1e-9] = 1.0
        self._mean, self._spread = float(y.mean()), float(y.std()) or 1.0
        self.X, self.y = self._standard(X), (y - self._mean) / self._spread
        self._least_noise = least_noise
        self._model = self._fitted(self.X, self.y)
        kernel: Any = self._model.kernel_  # the fitted sum, as it was put together below
        self._kernel = kernel
        self._linear, self._smooth = kernel.k1.k1.k1.constant_value, kernel.k1.k2.k1.constant_value
        self._bias = kernel.k1.k1.k2.sigma_0
        self._length = kernel.k1.k2.k2.length_scale
        self.noise = float(np.sqrt(kernel.k2.noise_level)) * self._spread  # standard deviation, in the target's units

    def _standard(self, X: Floats) -> Floats:
        return (X - self._centre) / self._scale / np.sqrt(X.shape[1])

    def _fitted(self, X: Floats, y: Floats, restarts: int = 2) -> GaussianProcessRegressor:
        kernel = (
            ConstantKernel(0.5, (1e-3, 1e2)) * DotProduct(1.0, (1e-2, 1e1))
            + ConstantKernel(0.5, (1e-2, 1e1)) * RBF(1.0, (0.3, 10.0))
            + WhiteKernel(0.05, (self._least_noise**2, 1.0))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return GaussianProcessRegressor(kernel, n_restarts_optimizer=restarts, random_state=0).fit(X, y)

    def error(self, groups: Sequence[str]) -> float:
        """Root mean square error on groups that were left out of the fit, in the target's units."""
        return float(np.sqrt((self.missed(groups) ** 2).mean()))

    def missed(self, groups: Sequence[str]) -> Floats:
        """Predicted less true values, shape (n,), each of a fit without its group and some others."""
        count = min(FOLDS, len(set(groups)))
        if count < 2:
            return -self.y * self._spread  # where nothing else is known, the mean is predicted
        missed = np.zeros_like(self.y)
        for learn, test in GroupKFold(count).split(self.X, self.y, groups):
            rest = self._fitted(self.X[learn], self.y[learn], restarts=0)
            missed[test] = rest.predict(self.X[test]) - self.y[test]
        return missed * self._spread

    def draw(self, random: np.random.Generator) -> Callable[[Floats], Floats]:
        """A function of features, shape (n, columns) to (n,), without the noise."""
        columns = self.X.shape[1]
        frequencies = random.normal(size=(FREQUENCIES, columns)) / self._length
        phases = random.uniform(0, 2 * np.pi, FREQUENCIES)
        weights = random.normal(size=FREQUENCIES) * np.sqrt(2 * self._smooth / FREQUENCIES)
        slopes = random.normal(size=columns) * np.sqrt(self._linear)
        offset = random.normal() * self._bias * np.sqrt(self._linear)

        def prior(Z: Floats) -> Floats:
            return np.cos(Z @ frequencies.T + phases) @ weights + Z @ slopes + offset

        own = self._kernel(self.X)  # with the noise on its diagonal
        noisy = prior(self.X) + random.normal(size=len(self.y)) * self.noise / self._spread
        correction = np.linalg.solve(own, self.y - noisy)

        def function(X: Floats) -> Floats:
            Z = self._standard(X)
            values = prior(Z) + self._kernel(Z, self.X) @ correction
            return values * self._spread + self._mean

        return function
