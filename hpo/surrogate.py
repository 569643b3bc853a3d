"""A Gaussian process over configurations and progress: what a trial would measure at the end of its training.

Every measurement of every trial counts, those of stopped trials too. How much an early one says of the end is learned
from the trials that got there (as in freeze-thaw and multi-task methods: Swersky et al., Freeze-Thaw Bayesian
Optimization, 2014; Klein et al., Model-based Asynchronous Hyperparameter and Neural Architecture Search, 2020). A level
of progress has a mean of its own, so that it does not matter that only the better trials got far: given all that led to
the choice, a selection of what to observe does not bias the model.

Pure arithmetic on arrays; knows no space and no trial. Shape suffixes: N observations, M places asked for, F features,
T hyperparameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

_SQRT5 = math.sqrt(5.0)
_LEVEL_VARIANCE = 25.0  # of each level's mean, around what all have in common; values are standardized
_JITTER = 1e-8
_STEPS = 15


@dataclass(frozen=True)
class Observations:
    """What was measured.

    Attributes:
        features_NF: of the configurations, each about 0 to 1.
        depth_N: how far from the end: 0 at the end of training, 1 at the earliest level.
        level_N: which of the levels of progress, for their means.
        value_N: smaller is better; standardized.
    """

    features_NF: Array
    depth_N: Array
    level_N: NDArray[np.int64]
    value_N: Array


class Surrogate:
    """A fitted model.

    The hyperparameters are those of the highest posterior density, found from one fixed start, so that a model is a
    function of what was observed.
    """

    def __init__(self, seen: Observations) -> None:
        self._seen = seen
        features = seen.features_NF.shape[1]
        self._squares_FNN = (seen.features_NF.T[:, :, None] - seen.features_NF.T[:, None, :]) ** 2
        self._apart_NN = np.abs(seen.depth_N[:, None] - seen.depth_N[None, :])
        self._alike_NN = (seen.level_N[:, None] == seen.level_N[None, :]).astype(np.float64)
        self._several = bool(np.ptp(seen.depth_N) > 0)
        # log length scales, log amplitude, log noise, log reach over depth, and by depth the slopes of both before it
        scale = math.log(0.5 * math.sqrt(features))
        self._centre = np.array([*[scale] * features, 0.0, math.log(0.05), 0.0, 0.0, 1.0])
        self._width = np.array([*[0.9] * features, 0.7, 0.7, 1.0, 0.5, 1.0])
        self._theta = self._fit()
        self._factor_NN, self._weights_N = self._solved(self._theta)

    # -- fitting ----------------------------------------------------------------------------------------

    def _fit(self) -> Array:
        if len(self._seen.value_N) < 3:
            return self._centre
        found = minimize(
            self._loss, self._centre, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "ftol": 1e-4},
            bounds=[(c - 4 * w, c + 4 * w) for c, w in zip(self._centre, self._width, strict=True)],
        )  # fmt: skip
        best: Array = found.x
        return best

    def _loss(self, theta_T: Array) -> tuple[float, Array]:
        """Negative log posterior density of the hyperparameters, and its gradient."""
        count, features = len(self._seen.value_N), self._squares_FNN.shape[0]
        covariance, parts = self._covariance(theta_T)
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta_T)
        weights = cho_solve((factor, True), self._seen.value_N, check_finite=False)
        inverse = cho_solve((factor, True), np.eye(count), check_finite=False)
        shift = (theta_T - self._centre) / self._width
        loss = 0.5 * self._seen.value_N @ weights + np.log(np.diag(factor)).sum() + 0.5 * shift @ shift
        pull_NN = 0.5 * (inverse - np.outer(weights, weights))
        gradient = shift / self._width
        signal, slope, noise = parts["signal"], parts["slope"], 2 * self._noise(theta_T) * np.diag(pull_NN)
        weighted = pull_NN * slope
        for index in range(features):
            gradient[index] += float((weighted * self._squares_FNN[index]).sum()) * math.exp(-2 * theta_T[index])
        gradient[features] += 2 * float((pull_NN * signal).sum())
        gradient[features + 1] += float(noise.sum())
        if self._several:
            reach = math.exp(theta_T[features + 2])
            gradient[features + 2] += float((pull_NN * signal * self._apart_NN).sum()) / reach
            both = self._seen.depth_N[:, None] + self._seen.depth_N[None, :]
            gradient[features + 3] += float((pull_NN * signal * both).sum())
            gradient[features + 4] += float((noise * self._seen.depth_N).sum())
        return float(loss), gradient

    def _covariance(self, theta_T: Array) -> tuple[Array, dict[str, Array]]:
        features = self._squares_FNN.shape[0]
        scales = np.exp(-2 * theta_T[:features])
        distance = np.sqrt(np.tensordot(scales, self._squares_FNN, axes=1))
        decay = np.exp(-_SQRT5 * distance)
        strength = self._strength(theta_T, self._seen.depth_N)
        outer = np.outer(strength, strength)
        if self._several:
            outer = outer * np.exp(-self._apart_NN / math.exp(theta_T[features + 2]))
        signal = outer * (1 + _SQRT5 * distance + 5 / 3 * distance**2) * decay
        slope = outer * (5 / 3) * (1 + _SQRT5 * distance) * decay  # of the signal by the logarithm of a length scale
        covariance = signal + _LEVEL_VARIANCE * self._alike_NN
        covariance[np.diag_indices_from(covariance)] += self._noise(theta_T) + _JITTER
        return covariance, {"signal": signal, "slope": slope}

    def _noise(self, theta_T: Array) -> Array:
        """Variance of each measurement about what its configuration and level say: early ones tell of less."""
        features = self._squares_FNN.shape[0]
        noise: Array = np.exp(2 * (theta_T[features + 1] + theta_T[features + 4] * self._seen.depth_N))
        return noise

    def _strength(self, theta_T: Array, depth: Array) -> Array:
        features = self._squares_FNN.shape[0]
        strength: Array = np.exp(theta_T[features] + theta_T[features + 3] * depth)
        return strength

    def _solved(self, theta_T: Array) -> tuple[Array, Array]:
        covariance, _ = self._covariance(theta_T)
        for extra in (0.0, 1e-6, 1e-4, 1e-2):
            try:
                factor = cholesky(covariance + extra * np.eye(len(covariance)), lower=True, check_finite=False)
                return factor, cho_solve((factor, True), self._seen.value_N, check_finite=False)
            except np.linalg.LinAlgError:
                continue
        raise AssertionError("a covariance matrix with a hundredth on its diagonal can be factored")

    # -- asking -----------------------------------------------------------------------------------------

    def predict(self, features_MF: Array, depth: float, level: int) -> tuple[Array, Array]:
        """Mean and standard deviation of what places would measure at a level, noise left out: (M,), (M,)."""
        cross_MN = self._cross(features_MF, depth, level)
        mean = cross_MN @ self._weights_N
        half_NM = solve_triangular(self._factor_NN, cross_MN.T, lower=True, check_finite=False)
        prior = self._strength(self._theta, np.array([depth]))[0] ** 2 + _LEVEL_VARIANCE
        variance = np.maximum(prior - (half_NM**2).sum(axis=0), 1e-12)
        return mean, np.sqrt(variance)

    def _cross(self, features_MF: Array, depth: float, level: int) -> Array:
        count = self._squares_FNN.shape[0]
        scales = np.exp(-self._theta[:count])
        one, other = features_MF * scales, self._seen.features_NF * scales
        squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
        distance = np.sqrt(np.maximum(squares, 0.0))
        strength = self._strength(self._theta, self._seen.depth_N) * self._strength(self._theta, np.array([depth]))[0]
        if self._several:
            strength = strength * np.exp(-np.abs(self._seen.depth_N - depth) / math.exp(self._theta[count + 2]))
        signal = strength * (1 + _SQRT5 * distance + 5 / 3 * distance**2) * np.exp(-_SQRT5 * distance)
        cross: Array = signal + _LEVEL_VARIANCE * (self._seen.level_N == level)
        return cross

    def believing(self, features_PF: Array, depth: float, level: int) -> Surrogate:
        """The model, had these places measured what it expects of them (Ginsbourger et al. 2010, kriging believer)."""
        mean, _ = self.predict(features_PF, depth, level)
        seen = self._seen
        fantasy = Observations(
            np.concatenate([seen.features_NF, features_PF]),
            np.concatenate([seen.depth_N, np.full(len(mean), depth)]),
            np.concatenate([seen.level_N, np.full(len(mean), level, dtype=np.int64)]),
            np.concatenate([seen.value_N, mean]),
        )
        return _Refitted(fantasy, self._theta)


class _Refitted(Surrogate):
    """Other observations under hyperparameters that are known."""

    def __init__(self, seen: Observations, theta_T: Array) -> None:
        self._known: Any = theta_T
        super().__init__(seen)

    def _fit(self) -> Array:
        found: Array = self._known
        return found
