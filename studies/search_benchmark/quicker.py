"""The same searches for a third of the time: stand-ins for where Syne Tune's model-based searchers spend theirs.

    python studies/search_benchmark/quicker.py TABLE --surfaces FOLDER [--strategy "syne-tune asha cqr"] [--repeats 2]

Three functions take most of it, all general where these searches need one case: what scikit-learn looks at before it grows
each of thousands of small trees, its weighted percentile, which is called for each of their leaves, and Syne Tune's draw of
one category. The stand-ins return the same numbers to the bit and draw the same from the generator; every other case goes
to the original. scikit-learn's checks of its own arguments are left out. The command searches with and without them and
compares every trial.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

_theirs: dict[str, Any] = {}


def _grow(
    self: Any,
    X: Any,  # noqa: N803  # scikit-learn passes it by name
    y: Any,
    sample_weight: Any = None,
    check_input: bool = True,
    missing_values_in_feature_mask: Any = None,
) -> Any:
    """A tree of least squares on dense numbers that were checked before, all of whose leaves stay."""
    from sklearn.tree import _classes, _criterion, _splitter, _tree

    weighted = sample_weight is not None and sample_weight.ndim == 1 and sample_weight.dtype == np.float64
    plain = (self.criterion, self.splitter, self.max_features, self.max_leaf_nodes, self.ccp_alpha) == (
        "squared_error",
        "best",
        None,
        None,
        0.0,
    )
    whole = isinstance(self.min_samples_leaf, int) and isinstance(self.min_samples_split, int)
    if check_input or not weighted or not plain or not whole or self.max_depth is None or y.ndim != 1:
        return _theirs["grow"](self, X, y, sample_weight, check_input, missing_values_in_feature_mask)
    count, self.n_features_in_ = X.shape
    self.n_outputs_, self.max_features_ = 1, self.n_features_in_
    leaf = self.min_samples_leaf
    least_weight = self.min_weight_fraction_leaf * np.sum(sample_weight)
    splitter = _splitter.BestSplitter(
        _criterion.MSE(1, count),
        self.n_features_in_,
        leaf,
        least_weight,
        _classes.check_random_state(self.random_state),
        None,
    )
    self.tree_ = _tree.Tree(self.n_features_in_, np.array([1], dtype=np.intp), 1)
    _tree.DepthFirstTreeBuilder(
        splitter,
        max(self.min_samples_split, 2 * leaf),
        leaf,
        least_weight,
        self.max_depth,
        self.min_impurity_decrease,
    ).build(
        self.tree_,
        X,
        np.ascontiguousarray(y.reshape(-1, 1), dtype=np.float64),
        np.ascontiguousarray(sample_weight),
        missing_values_in_feature_mask,
    )
    return self


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
    from sklearn.tree._classes import BaseDecisionTree
    from syne_tune import config_space

    _theirs["percentile"], loss._weighted_percentile = loss._weighted_percentile, _percentile
    _theirs["grow"], BaseDecisionTree._fit = BaseDecisionTree._fit, _grow
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
