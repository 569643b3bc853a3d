"""`hpo replay`: a finished study, or a recorded table, searched again by other strategies.

Puts the rooms of `hpo.replay` together for one command.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hpo import tradeoff
from hpo.errors import UserError, did_you_mean
from hpo.folder import find_study
from hpo.halving import RULES
from hpo.journal import History
from hpo.replay import modelled
from hpo.replay.contest import RECORDED, Entrant, Result, Terms, compete
from hpo.replay.recorded import read_tables, study_table
from hpo.replay.synthetic import synthetic
from hpo.replay.tables import Table, continued
from hpo.sweep import PRUNERS, SAMPLERS, Strategy

_SHARES = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
_RULES = ("none", "median", "successive halving", "pausing halving", "best of rung")
_SEARCHES = (("random", "none"), ("tpe", "median"), ("auto", "auto"))
SYNTHETIC = "synthetic:"


@dataclass(frozen=True)
class Target:
    """What is replayed.

    Attributes:
        is_study: whether its trials have an order of their own.
        guessed: rows that go on by a guess where they were stopped, and the guess's error.
    """

    table: Table
    is_study: bool
    guessed: int = 0
    error: float | None = None


def target(name: str, studies: Path) -> Target:
    """A study by its name, a file of tables (`FILE`, or `FILE#TABLE`), or `synthetic:SEED`.

    Raises:
        UserError: there is no such thing, or nothing in it can be replayed.
    """
    if name.startswith(SYNTHETIC):
        seed = name.removeprefix(SYNTHETIC)
        if not seed.isdigit():
            raise UserError(f"{name}: a synthetic surface has a number, such as synthetic:3.")
        return Target(synthetic(int(seed)), is_study=False)
    path, _, wanted = name.partition("#")
    if Path(path).suffix in (".csv", ".jsonl"):
        tables = {table.name: table for table in read_tables(Path(path))}
        if not wanted and len(tables) > 1:
            raise UserError(f"{path} has {len(tables)} tables; name one: {path}#NAME of {', '.join(tables)}.")
        if wanted and wanted not in tables:
            raise UserError(
                f"{path} has no table {wanted!r}.{did_you_mean(wanted, tables)} It has {', '.join(tables)}."
            )
        return Target(tables[wanted] if wanted else next(iter(tables.values())), is_study=False)
    folder = find_study(studies, name)
    from hpo.run import reopened

    plan = reopened(folder)
    table = study_table(folder, plan.space, plan.tradeoff, History.read(folder.journal))
    whole, guessed, error = continued(table)
    return Target(whole, is_study=True, guessed=guessed, error=error)


def answering(table: Table, way: str) -> tuple[Table, modelled.Answers | None]:
    """The table with what is to answer for what was not recorded, and how well either way does.

    Raises:
        UserError: there is no such way, or the table cannot have it.
    """
    if way not in modelled.WAYS:
        raise UserError(f"--answers {way}: requires {' or '.join(modelled.WAYS)}.{did_you_mean(way, modelled.WAYS)}")
    found = modelled.answered(table) if way == "model" else table
    return found, modelled.validated(table)


def strategy(text: str, known: Sequence[str], what: str) -> Strategy:
    """A sampler or pruner as it is written on the command line: `median`, or `successive halving,reduction_factor=4`.

    Raises:
        UserError: there is none of this name, or an option is malformed.
    """
    name, *options = [part.strip() for part in text.split(",")]
    if name not in known and ":" not in name:
        raise UserError(f"--{what} {name}: requires one of {', '.join(known)}.{did_you_mean(name, known)}")
    found: dict[str, object] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--{what} {text}: an option is written NAME=VALUE, got {option!r}.")
        found[key] = _value(value)
    return Strategy(name, found)


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def shares(text: str | None) -> tuple[Fraction, ...]:
    """Rungs as shares of a whole trial: `1/9,1/3,1`.

    Raises:
        UserError: one of them is none.
    """
    if text is None:
        return _SHARES
    try:
        found = tuple(sorted({Fraction(part.strip()) for part in text.split(",")} | {Fraction(1)}))
    except (ValueError, ZeroDivisionError):
        raise UserError(f"--rungs {text}: requires shares of a whole trial, such as 1/9,1/3,1.") from None
    if not all(0 < share <= 1 for share in found):
        raise UserError(f"--rungs {text}: a share is above 0 and at most 1.")
    return found


def entrants(
    samplers: Sequence[str],
    pruners: Sequence[str],
    rungs: tuple[Fraction, ...],
    *,
    is_study: bool,
    curves: bool,
    weighs: bool = False,
) -> tuple[list[Entrant], list[Entrant]]:
    """Those that stop the recorded trials in their order, and those that search anew.

    Where the table `weighs` several metrics against each other, only those that a sweep may name there.

    Raises:
        UserError: there is no such strategy, or it knows one metric only.
    """
    rules = [strategy(text, PRUNERS, "pruner") for text in pruners or _RULES]
    searches = [(Strategy(sampler), Strategy(rule)) for sampler, rule in _SEARCHES]
    if weighs:
        named = [(sampler, "sampler") for text in samplers for sampler in [strategy(text, SAMPLERS, "sampler")]]
        named += [(rule, "pruner") for rule in rules if pruners]
        for one, what in named:
            able = tradeoff.SAMPLERS if what == "sampler" else tradeoff.PRUNERS
            if one.name not in able:
                raise UserError(f"--{what} {one}: knows one metric, and there is a trade-off. Use {', '.join(able)}.")
        rules = [rule for rule in rules if rule.name in tradeoff.PRUNERS]
        searches = [one for one in searches if one[0].name in tradeoff.SAMPLERS and one[1].name in tradeoff.PRUNERS]
    backtests = [Entrant(_rule_name(rule, rungs), RECORDED, _rule(rule), _rungs(rule, rungs)) for rule in rules]
    if samplers:
        names = [strategy(text, SAMPLERS, "sampler") for text in samplers]
        own = rules if pruners else [Strategy("auto" if curves else "none")]
        searches = [(sampler, rule) for sampler in names for rule in own]
    fresh = [
        Entrant(
            f"{sampler}, {_rule_name(rule, rungs)}" if curves else str(sampler),
            sampler,
            _rule(rule),
            _rungs(rule, rungs),
        )
        for sampler, rule in searches
    ]
    return (backtests if is_study and curves else []), fresh


def _rule(rule: Strategy) -> Strategy:
    return Strategy("pausing halving", rule.options) if rule.name == "auto" else rule


def _rungs(rule: Strategy, rungs: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """Optuna's rules judge at every recorded measurement, as their users have them; ours at rungs."""
    return rungs if (_rule(rule).name in RULES and rule.name != "none") or rule.name == "hyperband" else ()


def _rule_name(rule: Strategy, rungs: tuple[Fraction, ...]) -> str:
    if rule.name == "none":
        return "nothing stopped"
    at = f" at {', '.join(str(share) for share in rungs if share < 1)}" if _rungs(rule, rungs) else ""
    return f"{rule}{at}"


def run(table: Table, taking_part: Sequence[Entrant], terms: Terms) -> Iterator[Result]:
    """Replay, repeats side by side on the cores there are."""
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
    if workers < 2 or table.answers is not None or terms.repeats < 8:
        yield from compete(table, taking_part, terms)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool:
        yield from compete(table, taking_part, terms, pool)
