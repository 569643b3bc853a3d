"""Where a search looks without asking a model: evenly over the space, and beside the best trial.

A model that is sure of the wrong place would not look elsewhere by itself. What it gets wrong most is a setting whose
best value depends on others: what bad trials say of the setting, it takes for what would hold beside the best. Points
that are spread over the space seldom have all other settings right; the best trial with one setting changed has. A look
costs a first rung.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpo.encoding import Encoding
from hpo.trials import Value

if TYPE_CHECKING:  # takes long to import
    from scipy.stats import qmc

Array = NDArray[np.float64]
Fits = Callable[[Mapping[str, Value]], bool]

EVERY = 5  # of so many trials, one explores, where a trial that is no good is cut short
_SPREAD = 3  # of so many that explore, one is spread over the space; so are the first two: there is no best yet
_GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly, however many there are
_APART = 0.1  # of an axis: what is nearer to a tried place is left to the model
_TRIES = 32


def key(place_P: Array) -> bytes:
    """A snapped place of the cube, to look it up by."""
    return bytes(place_P.round(9).tobytes())


def which_look(number: int, *, settled: bool = False) -> int | None:
    """Which of the looks beside the best trial a trial is, counted from 1; None: it is none.

    Of those that explore, two of three are. Of the others, where the model has settled, all but one in `EVERY` are.
    Both are counted without gaps, so that each setting has its turn.
    """
    turn, place = divmod(number, EVERY)
    if place < EVERY - 1:
        return (EVERY - 2) * turn + place if settled and place > 0 else None
    looks, left = divmod(turn, _SPREAD)
    if turn < 2 or left == 1:
        return None
    return (_SPREAD - 1) * looks + left // 2


class Explorer:
    """Places to try that no model chose; each is a function of the study's seed, the trial's number and what was tried.

    Args:
        encoding: of the space, as a cube of P axes.
        seed: of the study.
    """

    def __init__(self, encoding: Encoding, seed: int) -> None:
        self._encoding = encoding
        self._seed = seed

    def spread(self, number: int, tried: set[bytes], fits: Fits) -> dict[str, Value]:
        """The next point of the study's Sobol sequence; one that was tried or does not fit is passed over.

        Args:
            number: of the trial that will have it.
            tried: keys of the places that were tried.
            fits: whether a configuration is expected to fit into memory.
        """
        points = self._sequence().random_base2(max(5, (number + 16).bit_length()))
        points[0] = 0.5  # what laws say; elsewhere people put their ranges around what they expect
        places = self._encoding.snap(points)
        order = [0, *range(number, len(places)), *range(1, number)]
        untried = [index for index in order if key(places[index]) not in tried]
        for index in untried:
            if fits(found := self._encoding.parameters(places[index])):
                return found
        return self._encoding.parameters(places[(untried or order)[0]])

    def beside(
        self, best: Mapping[str, Value], look: int, number: int, tried: set[bytes], near_NP: Array, fits: Fits
    ) -> dict[str, Value] | None:
        """The best trial with one setting changed: each setting in turn, far from what was tried.

        A setting that is not active there is made active, and what comes with it is as in a point of the sequence. A
        setting with a law is as far from what the law says as it was.

        Args:
            best: the configuration of the best trial.
            look: which of these looks it is, from 1.
            number: of the trial that will have it.
            tried: keys of the places that were tried.
            near_NP: places to keep away from.
            fits: whether a configuration is expected to fit into memory.

        Returns:
            None where no value was found that is far enough from what was tried, and fits.
        """
        axes = self._encoding.axes
        turn = (look - 1) // axes
        best_P = self._encoding.units(best)
        there = self._encoding.active(best_P)
        if not there.all():
            best_P = np.where(there, best_P, self._sequence().fast_forward(number).random(1)[0])
        for axis in ((look - 1 + step) % axes for step in range(axes)):
            base = self._encoding.activated(best_P, axis, turn)
            if not self._encoding.active(self._encoding.snap(base[None, :])[0])[axis]:
                continue
            for attempt in range(_TRIES):
                place = base.copy()
                place[axis] = (0.5 + _GOLDEN * (turn + 1 + attempt + axis)) % 1.0
                place = self._encoding.snap(place[None, :])[0]
                if key(place) in tried or self._encoding.apart(place, near_NP).min() < _APART:
                    continue
                if fits(found := _as_in(best, self._encoding.parameters(place))):
                    return found
        return None

    def _sequence(self) -> qmc.Sobol:
        from scipy.stats import qmc

        return qmc.Sobol(self._encoding.axes, scramble=True, rng=self._seed)


def _as_in(best: Mapping[str, Value], found: Mapping[str, Value]) -> dict[str, Value]:
    """A configuration in which what is the best one's but for rounding is the best one's to the bit."""
    return {name: best[name] if _same(best.get(name), value) else value for name, value in found.items()}


def _same(one: Value | None, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return type(one) is type(other) and one == other
