"""The same searches for a sixth to a quarter of the time: stand-ins for where Syne Tune's model-based searchers spend theirs.

    python studies/search_benchmark/quicker.py TABLE --surfaces FOLDER [--strategy "syne-tune asha cqr"] [--repeats 2]

Three functions take most of it, all general where these searches need one case: scikit-learn's boosting, which looks at
the arguments of each of thousands of small trees, its weighted percentile, and Syne Tune's draw of one category. The
stand-ins return the same numbers to the bit and draw the same from the generator; every other case goes to the original.
scikit-learn's checks of its own arguments are left out. The command searches with and without them and compares every
trial.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

_theirs: dict[str, Any] = {}


def _boost(
    self: Any,
    X: Any,  # noqa: N803  # as scikit-learn names it
    y: Any,
    raw_predictions: Any,
    sample_weight: Any,
    random_state: Any,
    X_val: Any,  # noqa: N803
    y_val: Any,
    sample_weight_val: Any,
    begin_at_stage: int = 0,
    monitor: Any = None,
) -> int:
    """All trees of a regression of one quantile, on dense numbers that weigh the same; no account of the loss is kept."""
    from sklearn._loss.loss import PinballLoss
    from sklearn.tree import DecisionTreeRegressor, _criterion, _splitter, _tree

    plain = (self.subsample, self.max_features, self.max_leaf_nodes, self.ccp_alpha, self.verbose) == (
        1.0, None, None, 0.0, 0,
    )  # fmt: skip
    whole = all(isinstance(one, int) for one in (self.max_depth, self.min_samples_leaf, self.min_samples_split))
    stops = monitor is not None or self.n_iter_no_change is not None
    squares = self.criterion in ("deprecated", "squared_error")  # what the former says in scikit-learn 1.9
    alike = squares and isinstance(X, np.ndarray) and bool((sample_weight == 1.0).all())
    if type(self._loss) is not PinballLoss or not plain or not whole or stops or not alike or random_state is None:
        return _theirs["boost"](
            self, X, y, raw_predictions, sample_weight, random_state, X_val, y_val, sample_weight_val,
            begin_at_stage, monitor,
        )  # fmt: skip
    (count, width), quantile = X.shape, self._loss.closs.quantile
    least_weight = self.min_weight_fraction_leaf * np.sum(sample_weight)
    splitter = _splitter.BestSplitter(
        _criterion.MSE(1, count), width, self.min_samples_leaf, least_weight, random_state, None
    )
    builder = _tree.DepthFirstTreeBuilder(
        splitter, max(self.min_samples_split, 2 * self.min_samples_leaf), self.min_samples_leaf, least_weight,
        self.max_depth, self.min_impurity_decrease,
    )  # fmt: skip
    raw = raw_predictions[:, 0]
    for stage in range(begin_at_stage, self.n_estimators):
        tree = _tree.Tree(width, np.array([1], dtype=np.intp), 1)
        builder.build(tree, X, np.where(y >= raw, quantile, quantile - 1)[:, None], sample_weight, None)
        leaves, values, left = tree.apply(X), tree.value[:, 0, 0], y - raw
        here = np.bincount(leaves, minlength=tree.node_count)
        full = here > 0
        # Of each leaf, the percentile of what is left to explain: rows in order of leaf, and of that within it.
        rank = np.ceil(100 * quantile / 100 * here[full]).astype(int) - 1
        values[full] = left[np.lexsort((left, leaves))[(here.cumsum() - here)[full] + np.minimum(rank, here[full] - 1)]]
        raw += self.learning_rate * values.take(leaves)
        grown = self.estimators_[stage, 0] = DecisionTreeRegressor.__new__(DecisionTreeRegressor)
        grown.tree_ = tree
    return self.n_estimators


def _percentile(
    array: Any, sample_weight: Any, percentile_rank: Any = 50, average: bool = False, xp: Any = None
) -> Any:
    """Of a vector, one percentile, without averaging."""
    plain = array.ndim == 1 and array.dtype == np.float64 and not np.ndim(percentile_rank) and not average
    if not plain or not np.isfinite(array).all():
        return _theirs["percentile"](array, sample_weight, percentile_rank, average, xp)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if not weights.any():
        return np.nan
    order = array.argsort()
    reached = weights[order].cumsum()
    rank = percentile_rank / 100 * reached[-1]
    if rank == 0:
        rank = np.nextafter(rank, rank + 1)
    return array[order[min(int(reached.searchsorted(rank)), len(order) - 1)]]


def _draw(self: Any, domain: Any, spec: Any = None, size: int = 1, random_state: Any = None) -> Any:
    """One category."""
    if size != 1:
        return _theirs["draw"](self, domain, spec, size, random_state)
    return domain.categories[(random_state or np.random).randint(0, len(domain.categories))]


def install() -> None:
    """Use the stand-ins from now on, in this process."""
    if _theirs:
        return
    import sklearn
    from sklearn._loss import loss
    from sklearn.ensemble._gb import BaseGradientBoosting
    from syne_tune import config_space

    _theirs["percentile"], loss._weighted_percentile = loss._weighted_percentile, _percentile
    _theirs["boost"], BaseGradientBoosting._fit_stages = BaseGradientBoosting._fit_stages, _boost
    uniform = config_space.Categorical._Uniform
    _theirs["draw"], uniform.sample = uniform.sample, _draw
    sklearn.set_config(skip_parameter_validation=True, assume_finite=True)


def main() -> None:
    from measure import entrant, tables

    from hpo.replay.contest import Terms, compete

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--strategy", default="syne-tune asha cqr")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    found = []
    for quicker in (False, True):
        if quicker:
            install()
        began = time.process_time()
        (result,) = compete(
            tables(given.surfaces)[given.table], [entrant(given.strategy)], Terms(given.repeats, 1, 20.0)
        )
        found.append([(one.steps, one.spent, one.off_table) for one in result.replays])
        print(f"{'with' if quicker else 'without'} the stand-ins: {time.process_time() - began:.1f} s")
    print("every trial is the same" if found[0] == found[1] else "THE SEARCHES DIFFER")
    raise SystemExit(found[0] != found[1])


if __name__ == "__main__":
    main()
