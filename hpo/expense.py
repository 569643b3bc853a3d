"""What a training would cost, by its configuration: learned from how long the trials of the study took.

A larger model, a smaller batch or more epochs take longer, and by how much depends on the machine: nothing is assumed
but that alike configurations cost alike. Costs multiply, so their logarithm is modelled. Knows no sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpo.observations import Seen

if TYPE_CHECKING:  # numpy and scipy are imported when a trial is asked for: `hpo check` must not wait for them
    import numpy as np
    from numpy.typing import NDArray

    from hpo.encoding import Encoding
    from hpo.surrogate import Surrogate

    Array = NDArray[np.float64]

_ENOUGH = 3  # trials that took a time, before it is thought to depend on anything


class Expense:
    """A Gaussian process over the logarithm of the seconds of a whole training (Snoek et al., Practical Bayesian
    Optimization of Machine Learning Algorithms, NeurIPS 2012, section 3.2).

    Args:
        encoding: of the study's space.
        seen: its trials; those that did not measure yet, or ran elsewhere at a time that is not known, tell nothing.
    """

    def __init__(self, encoding: Encoding, seen: Sequence[Seen]) -> None:
        import numpy as np

        timed = [trial for trial in seen if trial.pace is not None]
        # Of an unknown length, a whole training is as long as the longest: to be stopped early is not to be cheap.
        longest = max((trial.curve[-1][0] for trial in timed if trial.curve), default=1)
        whole = [(trial.pace or 0.0) * (trial.length or longest) for trial in timed]
        seconds = np.log(np.array(whole, dtype=np.float64))
        self._spread = float(seconds.std()) if len(timed) >= _ENOUGH else 0.0
        self._surrogate: Surrogate | None = None
        if self._spread > 0:
            from hpo.surrogate import Observations, Surrogate

            features = encoding.features(encoding.units_of([trial.parameters for trial in timed]))
            same = np.zeros(len(timed))  # all are costs of whole trainings: there are no levels of progress
            standard = (seconds - seconds.mean()) / self._spread
            self._surrogate = Surrogate(Observations(features, same, same.astype(np.int64), standard))

    def of(self, features_MF: Array) -> Array:
        """The costs of configurations, relative to that of the mean trial: (M,)."""
        import numpy as np

        if self._surrogate is None:
            return np.ones(len(features_MF))
        mean, _ = self._surrogate.predict(features_MF, 0.0, 0)
        relative: Array = np.exp(self._spread * mean)
        return relative
