"""A stated share of a study's trials that are drawn at random and trained to their ends whatever the rule says.

What a sampler chose, or a rule stopped, is no sample of the space; these are one, and what they measure holds for it
without a bias. Which trials: a function of the study's seed and the trial's number, evenly spread, so that a study that
was interrupted, or is shared, has them where it would have had them. Knows no sampler and no rule.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass

from hpo.space import Space
from hpo.trials import Value


@dataclass(frozen=True)
class Unbiased:
    """Which trials are drawn at random, and what they are.

    Attributes:
        share: of the trials after the first, 0 to 1.
        seed: of the study.
    """

    share: float
    seed: int

    def takes(self, number: int) -> bool:
        """Whether this trial is one of them; trial 0 never is, it is the baseline."""
        return number > 0 and self.before(number + 1) > self.before(number)

    def before(self, number: int) -> int:
        """How many trials of lower numbers are of them."""
        if not self.share:
            return 0
        offset = random.Random(zlib.crc32(f"unbiased/{self.seed}".encode())).random()
        return math.floor(max(0, number - 1) * self.share + offset)

    def draw(self, space: Space, number: int) -> dict[str, Value]:
        """The configuration of such a trial: each range uniformly, log ranges by their exponent."""
        return space.draw(random.Random(zlib.crc32(f"unbiased/{self.seed}/{number}".encode())))
