"""What `auto` stands for, in words that say no more than is done."""

from __future__ import annotations

import pytest

from hpo.defaults import Circumstances, reasons, settled
from hpo.sweep import Search, Strategy

ALONE = Circumstances(resumes=True, shared=False, rungs_written=False)


def sampler(search: Search, where: Circumstances) -> str:
    return next(sentence for sentence in reasons(search, where) if sentence.startswith("sampler auto"))


@pytest.mark.parametrize(
    ("search", "where", "cut_short"),
    [
        (Search(), ALONE, True),
        (Search(pruner=Strategy("median")), ALONE, True),
        (Search(pruner=Strategy("none")), ALONE, False),
        (Search(), Circumstances(resumes=False, shared=False, rungs_written=False, weighs=True), False),
    ],
)
def test_only_where_trials_are_cut_short_some_are_said_to_explore(
    search: Search, where: Circumstances, cut_short: bool
) -> None:
    assert ("every fifth trial explores" in sampler(search, where)) is cut_short
    assert (settled(search, where).pruner.name != "none") is cut_short


def test_improvement_is_said_to_be_per_second_only_where_it_is() -> None:
    assert "per second" not in sampler(Search(), ALONE)
    assert "per second" not in sampler(Search(sampler=Strategy("auto", {"cost_aware": False})), ALONE)
    assert "improvement per second of training" in sampler(
        Search(sampler=Strategy("auto", {"cost_aware": True})), ALONE
    )
