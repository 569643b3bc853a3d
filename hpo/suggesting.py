"""The sampler `auto`: evenly spread configurations first, then where a model of all curves expects to improve.

Where trials are cut short, every fifth explores without the model (`hpo.exploring`), and four of five do once the model
expects next to nothing anywhere.

Its choice is a function of the recorded trials, the study's seed and the trial's number: a study that was interrupted
goes on as it would have gone on. Knows no Optuna.
"""

from __future__ import annotations

import contextlib
import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hpo.errors import UserError, did_you_mean
from hpo.expense import Expense
from hpo.observations import Observed, Seen
from hpo.parego import Weighed
from hpo.space import Space
from hpo.sweep import Strategy
from hpo.trials import Direction, Value

if TYPE_CHECKING:  # numpy and scipy are imported when a trial is asked for: `hpo check` must not wait for them
    import numpy as np
    import threadpoolctl
    from numpy.typing import NDArray

    from hpo.encoding import Encoding
    from hpo.exploring import Explorer, Fits

    Array = NDArray[np.float64]

_OPTIONS = ("startup", "cost_aware")
_STARTUP = 4
_LEVELS = (1 / 27, 1 / 9, 1 / 3, 2 / 3, 1.0)  # of a trial, about where its curve is looked at
_POOL, _NEAR, _LEADERS = 512, 48, 5
_NEIGHBOURHOODS = (0.02, 0.08, 0.25)
_MOST_TRIALS = 64  # that a model is made of; it costs the number of their measurements cubed
_LEADING = 32
_APART = 0.06  # of an axis: two that are nearer tell the same, within the noise of training
_FIRST = 12  # trials, by which values are scaled
_CHANCE = 0.1  # to be better than the best: where points go on being spread, what has less is left to them
_LEFT = 1e-6  # of its improvement, so that it is asked for after all others
_LATEST = 2  # measurements of each: what came before says little more
_ENOUGH = 3  # measurements at a level, before what is looked for is the best of that level
_LITTLE = 0.02  # of the good half's spread: to expect less improvement is to have found what the model can tell apart
_AS_GOOD = 0.3  # of the good half's spread: whoever is expected to be no farther from the best may be the best


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    import numpy as np  # noqa: F401  # their libraries must be there to be found
    import scipy.linalg  # noqa: F401
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def single_threaded() -> contextlib.AbstractContextManager[object]:
    """The matrices are small, and the cores are the trials': several threads would wait for each other."""
    found: contextlib.AbstractContextManager[object] = _libraries().limit(limits=1)
    return found


class Suggester(Protocol):
    """A sampler of our own."""

    def suggest(self, number: int, observed: Observed, fits: Fits) -> dict[str, Value]:
        """The next configuration.

        Args:
            number: of the trial that will have it.
            observed: every trial so far, those that run and those of a warm start too.
            fits: whether a configuration is expected to fit into memory.
        """
        ...


def make_suggester(
    strategy: Strategy, space: Space, direction: Direction, seed: int, *, weighs: bool = False
) -> Suggester | None:
    """The sampler of a sweep, where it is one of ours; None where it is Optuna's.

    Raises:
        UserError: it does not take these options.
    """
    if strategy.name != "auto":
        return None
    for option in strategy.options:
        if option not in _OPTIONS:
            raise UserError(f"{strategy.name} has no option {option!r}.{did_you_mean(option, _OPTIONS)}")
    startup = strategy.options.get("startup")
    if startup is not None and (isinstance(startup, bool) or not isinstance(startup, int) or startup < 1):
        raise UserError(f"{strategy.name}: startup requires a whole number from 1, got {startup!r}")
    cost_aware = strategy.options.get("cost_aware", False)
    if not isinstance(cost_aware, bool):
        raise UserError(f"{strategy.name}: cost_aware requires true or false, got {cost_aware!r}")
    return ModelBased(space, direction, seed, startup, weighs=weighs, cost_aware=cost_aware)


class ModelBased:
    """Scrambled Sobol points, then the largest expected improvement under `hpo.surrogate`, and some that explore.

    Args:
        space: what is searched.
        direction: of the metric.
        seed: of the study.
        startup: trials before a model is made; None: four.
        weighs: whether there is a trade-off: for each trial, its metrics are one by another weighting (`hpo.parego`).
        cost_aware: whether improvement is expected per second of training (`hpo.expense`), and not per trial.
    """

    def __init__(
        self,
        space: Space,
        direction: Direction,
        seed: int,
        startup: int | None = None,
        *,
        weighs: bool = False,
        cost_aware: bool = False,
    ) -> None:
        self._space = space
        self._weighs = weighs
        self._cost_aware = cost_aware
        self._sign = 1.0 if direction is Direction.MINIMIZE or weighs else -1.0
        self._seed = seed
        self._startup = startup or _STARTUP
        self._encoding: Encoding | None = None
        self._explorer: Explorer | None = None
        self._noted: Observed | None = None
        self._counted = 0
        self._tried: set[bytes] = set()
        self._weighing: Weighed | None = None

    def suggest(self, number: int, observed: Observed, fits: Fits) -> dict[str, Value]:
        from hpo.encoding import Encoding
        from hpo.exploring import EVERY, Explorer, which_look

        if self._encoding is None or self._explorer is None:
            self._encoding = Encoding(self._space)
            self._explorer = Explorer(self._encoding, self._seed)
        self._note_tried(observed, self._encoding)
        explores = observed.cut_short and number % EVERY == EVERY - 1
        look = which_look(number) if explores else None
        measured = any(trial.curve and not trial.says_nothing for trial in observed.trials)
        known = observed.useful >= self._startup and measured
        if not known or (explores and look is None):
            return self._explorer.spread(number, self._tried, fits)
        with single_threaded():
            bounds = (_MOST_TRIALS, _LEADING, _FIRST, zlib.crc32(f"{self._seed}/{number}".encode()))
            seen = self._weighed(observed).chosen(number, *bounds) if self._weighs else observed.chosen(*bounds)
            model = self._model(self._encoding, seen, explores=not observed.cut_short)
            found = self._improve(self._encoding, number, model, fits) if look is None else None
            if look is None and model.settled and observed.cut_short:
                look = which_look(number, settled=True)
            if look is not None:
                best = seen[model.best()].parameters
                found = self._explorer.beside(best, look, number, self._tried, model.places_NP, fits) or found
        return found or self._explorer.spread(number, self._tried, fits)

    def _weighed(self, observed: Observed) -> Weighed:
        if self._weighing is None or self._weighing.observed is not observed:
            self._weighing = Weighed(observed, _LEVELS, self._seed)
        return self._weighing

    def _note_tried(self, observed: Observed, encoding: Encoding) -> None:
        """Remember which places were tried, each trial once."""
        from hpo.exploring import key

        if self._noted is not observed:
            self._noted, self._counted = observed, 0
            self._tried.clear()
        for trial in observed.trials[self._counted :]:
            self._tried.add(key(encoding.units(trial.parameters)))
        self._counted = len(observed.trials)

    # -- with a model -----------------------------------------------------------------------------------

    def _model(self, encoding: Encoding, seen: Sequence[Seen], *, explores: bool) -> _Model:
        expense = Expense(encoding, seen) if self._cost_aware else None
        model = _Model(encoding, seen, self._sign, expense, explores=explores)
        model.believe([index for index, trial in enumerate(seen) if trial.ending is None and not trial.curve])
        return model

    def _improve(self, encoding: Encoding, number: int, model: _Model, fits: Fits) -> dict[str, Value] | None:
        """The configuration that promises most; None where every place that was drawn was tried or does not fit."""
        import numpy as np

        from hpo.exploring import key

        generator = np.random.default_rng(zlib.crc32(f"{self._seed}/{number}".encode()))

        def ranked(pool_MP: Array) -> list[tuple[float, Array]]:
            fresh = [place for place in encoding.snap(pool_MP) if key(place) not in self._tried]
            if not fresh:
                return []
            apart = np.abs(np.array(fresh)[:, None, :] - model.places_NP[None, :, :]).max(axis=2).min(axis=1)
            fresh = [place for place, far in zip(fresh, apart, strict=True) if far >= _APART] or fresh
            gain = model.gain(np.array(fresh))
            return sorted(zip(gain.tolist(), fresh, strict=True), key=lambda pair: -pair[0])

        found = ranked(np.concatenate([generator.random((_POOL, encoding.axes)), _around(model.leaders(), generator)]))
        finer = ranked(_around(np.array([place for _, place in found[:3]]), generator)) if found else []
        for _, place in sorted([*found, *finer], key=lambda pair: -pair[0]):
            if fits(parameters := encoding.parameters(place)):
                return parameters
        return None


class _Model:
    """What a model of all curves expects of places of the cube, against the best of the trials it is made of.

    Args:
        encoding: of the space.
        seen: the trials.
        sign: 1 where a smaller value of the metric is better, else -1.
        expense: what trainings cost, where that is to count.
        explores: whether it is on the model alone to look where little is known.
    """

    def __init__(
        self,
        encoding: Encoding,
        seen: Sequence[Seen],
        sign: float,
        expense: Expense | None = None,
        *,
        explores: bool = True,
    ) -> None:
        import numpy as np

        from hpo.surrogate import Observations, Surrogate

        self.encoding = encoding
        self.places_NP = encoding.units_of([trial.parameters for trial in seen])
        self._features_NF = encoding.features(self.places_NP)
        self._own_N = np.array([not trial.repeat for trial in seen])
        self._measured_N = np.array([bool(trial.curve) and not trial.is_bad for trial in seen])
        table = _Table.of(seen, sign)
        levels = np.array(table.level, dtype=np.int64)
        self._surrogate = Surrogate(
            Observations(self._features_NF[table.trial], table.depth(), levels, standardized(table))
        )
        self._depth, self._level = table.target()
        self._settled: bool | None = None  # decided by the first places that are asked for
        self._expense = expense
        self._explores = explores
        self._look()

    def _look(self) -> None:
        self._mean_N, _ = self._surrogate.predict(self._features_NF, self._depth, self._level)

    def believe(self, waiting: Sequence[int]) -> None:
        """Take trials that have not measured yet for what is expected of them."""
        if waiting:
            places = self._features_NF[list(waiting)]
            self._surrogate = self._surrogate.believing(places, self._depth, self._level)
            self._look()

    @property
    def settled(self) -> bool:
        """Whether next to no improvement was expected of any place that was asked for, as `gain` counts it."""
        return bool(self._settled)

    def best(self) -> int:
        """The trial that is expected to be the best, of those that have measured."""
        order = self._order()
        return int(next((index for index in order if self._measured_N[index]), order[0]))

    def leaders(self) -> Array:
        """Places of the best trials."""
        leading: Array = self.places_NP[self._order()[:_LEADERS]]
        return leading

    def _order(self) -> NDArray[np.int64]:
        """Trials by what is expected of them, repeats left out."""
        import numpy as np

        order = np.argsort(self._mean_N, kind="stable")
        own: NDArray[np.int64] = order[self._own_N[order]]
        return own

    def gain(self, places_MP: Array) -> Array:
        """What snapped places promise: expected improvement, in their order; by cost, where that is to count.

        A place that is expected to be bad promises much where the model is unsure enough; where exploring is not its
        business, such a small chance comes after all others.

        Where there is next to none anywhere, what is left to find is finer than the model: then, of the places that may
        be as good as the best, the least known promises most.
        """
        import numpy as np
        from scipy.special import ndtr

        features = self.encoding.features(places_MP)
        mean, spread = self._surrogate.predict(features, self._depth, self._level)
        best = float(self._mean_N.min())
        improvement = expected_improvement(mean, spread, best)
        if not self._explores:
            improvement = np.where(ndtr((best - mean) / spread) < _CHANCE, _LEFT * improvement, improvement)
        if self._settled is None:
            self._settled = bool(improvement.max() < _LITTLE)
        cost = 1.0 if self._expense is None else self._expense.of(features)
        if not self._settled:
            return improvement / cost
        known: Array = np.where(mean <= best + _AS_GOOD, spread / cost, best - mean)
        return known


def _around(centres_CP: Array, generator: np.random.Generator) -> Array:
    """Places near others: some of their axes moved, by little or much."""
    import numpy as np

    count, axes = len(centres_CP) * _NEAR, centres_CP.shape[1]
    moved = np.repeat(centres_CP, _NEAR, axis=0)
    width = generator.choice(_NEIGHBOURHOODS, size=(count, 1))
    chosen = generator.random((count, axes)) < max(0.5, 1 / axes)
    chosen[np.arange(count), generator.integers(axes, size=count)] = True
    step = generator.normal(size=(count, axes)) * width
    # A choice without neighbours is reached by a jump alone.
    jump = generator.random((count, axes)) < 0.1
    fresh = np.where(jump, generator.random((count, axes)), np.clip(moved + step, 0.0, 1.0))
    result: Array = np.where(chosen, fresh, moved)
    return result


def expected_improvement(mean_M: Array, spread_M: Array, best: float) -> Array:
    """Of the smallest value, by places of which mean and standard deviation are known (Jones et al. 1998, eq. 15)."""
    import numpy as np
    from scipy.special import ndtr

    shift = (best - mean_M) / spread_M
    density = np.exp(-0.5 * shift**2) / math.sqrt(2 * math.pi)
    gain: Array = spread_M * (shift * ndtr(shift) + density)
    return gain


@dataclass(frozen=True)
class _Table:
    """Measurements as columns: which trial, at what share of it, on which level, what value (smaller is better).

    `repeats` are the trials that tell of no new place: what a level is like, and whether enough have come to it, is
    decided without them. Three seeds of one configuration have the spread of noise, and not that of the space.
    """

    trial: list[int]
    share: list[float]
    level: list[int]
    value: list[float]
    repeats: frozenset[int] = frozenset()

    @classmethod
    def of(cls, seen: Sequence[Seen], sign: float) -> _Table:
        table = cls([], [], [], [], frozenset(index for index, trial in enumerate(seen) if trial.repeat))
        whole = max((trial.curve[-1][0] for trial in seen if trial.curve), default=1)
        bad: list[int] = []
        for index, trial in enumerate(seen):
            table._add(index, trial, sign, whole)
            if trial.is_bad:
                bad.append(index)
        worst = max(table.value, default=0.0)
        for index in bad:
            table._append(index, 1.0, len(_LEVELS) - 1, worst)
        return table

    def _add(self, index: int, trial: Seen, sign: float, whole: int) -> None:
        length = trial.length or whole
        last = len(_LEVELS) - 1
        nearest: dict[int, tuple[float, float, float]] = {}
        for progress, value in trial.curve:
            if progress >= length:
                continue
            share = progress / length
            distance, level = min((abs(math.log(share / one)), level) for level, one in enumerate(_LEVELS[:-1]))
            if level not in nearest or distance < nearest[level][0]:
                nearest[level] = (distance, share, value)
        kept = _LATEST - 1 if trial.value is not None else _LATEST
        for level in sorted(nearest)[-kept:]:
            _, share, value = nearest[level]
            self._append(index, share, level, sign * value)
        if trial.value is not None:
            self._append(index, 1.0, last, sign * trial.value)
        elif trial.curve and not nearest:  # its last measurement is behind it, and it has not ended yet
            self._append(index, 1.0, last, sign * trial.curve[-1][1])

    def _append(self, trial: int, share: float, level: int, value: float) -> None:
        self.trial.append(trial)
        self.share.append(share)
        self.level.append(level)
        self.value.append(value)

    def depth(self) -> Array:
        """How far from the end, by logarithm: 0 at the end, 1 at the earliest level."""
        import numpy as np

        depth: Array = np.log(np.array(self.share)) / math.log(_LEVELS[0])
        return depth

    def target(self) -> tuple[float, int]:
        """The level to find the best of: the end, or as far as enough trials have come."""
        own = [level for trial, level in zip(self.trial, self.level, strict=True) if trial not in self.repeats]
        counts = [own.count(level) for level in range(len(_LEVELS))]
        level = next((one for one in reversed(range(len(_LEVELS))) if counts[one] >= _ENOUGH), None)
        if level is None:
            level = max(range(len(_LEVELS)), key=lambda one: (counts[one], one))
        return math.log(_LEVELS[level]) / math.log(_LEVELS[0]), level


def standardized(table: _Table) -> Array:
    """Values of which each level has its median at 0, the good half a spread of about 1, and the bad half no tail.

    Median and spread are those of the first trials that reached the level. Later ones gather where it is good: by their
    own spread, what lies between them would seem large, and all else equally bad. A loss that exploded says that its
    configuration is bad, and not how bad: beyond the median the distance counts by its logarithm.
    """
    import numpy as np

    value, level = np.array(table.value), np.array(table.level)
    own = np.array([trial not in table.repeats for trial in table.trial])
    centred = np.empty_like(value)
    spreads: dict[int, float] = {}
    for one in np.unique(level):
        here = value[(level == one) & own][:_FIRST]
        here = here if len(here) else value[level == one]
        centred[level == one] = value[level == one] - np.median(here)
        spread = float(np.median(here) - np.quantile(here, 0.1))
        if len(here) >= _ENOUGH and spread > 0:
            spreads[int(one)] = spread
    usual = float(np.median(list(spreads.values()))) if spreads else float(np.abs(centred).max(initial=0.0)) or 1.0
    centred /= np.array([spreads.get(int(one), usual) for one in level])
    bounded: Array = np.where(centred > 0, np.log1p(np.maximum(centred, 0.0)), centred)
    return bounded
