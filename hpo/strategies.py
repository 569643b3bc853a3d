"""Whether the strategies that a sweep names can be had: each is made once, before anything starts.

Talks to Optuna as `hpo.study` does, and knows no study.
"""

from __future__ import annotations

import optuna

from hpo.distributions import distribution
from hpo.errors import Mistake, UserError
from hpo.notices import quiet
from hpo.samplers import make_sampler
from hpo.stopping import make_rule
from hpo.suggesting import make_suggester
from hpo.sweep import Search, Sweep


def mistakes_in(sweep: Sweep, search: Search) -> list[Mistake]:
    """What is wrong with the sampler and the stopping rule of a sweep, `search` being as `auto` was decided."""
    mistakes: list[Mistake] = []
    try:
        make_suggester(search.sampler, sweep.space, sweep.metric.direction, 0)
        sampler = make_sampler(search.sampler, seed=0, number=0, conditional=sweep.space.conditional)
        with quiet():
            distributions = {p.name: distribution(p.dimension) for p in sweep.space.parameters}
            optuna.create_study(sampler=sampler).ask(distributions)
    except UserError as error:
        mistakes.append(Mistake(sweep.place("search", "sampler"), f"search.sampler: {error}"))
    except Exception as error:  # options that Optuna takes at first and trips over at its first trial
        text = f"search.sampler: {search.sampler}: {type(error).__name__}: {error}."
        mistakes.append(Mistake(sweep.place("search", "sampler"), text))
    try:
        make_rule(search.pruner, sweep.metric.direction, 1, weighs=bool(sweep.tradeoff))
    except UserError as error:
        mistakes.append(Mistake(sweep.place("search", "pruner"), f"search.pruner: {error}"))
    return mistakes
