"""Samplers by the name a sweep gives them: which Optuna class, with which of its options.

Knows Optuna's samplers and nothing of studies. A sampler is made anew for each trial, with a seed that is a
function of the study's seed and the trial's number: what is sampled next then depends on the recorded trials
alone, and a study that was interrupted goes on as it would have gone on.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import optuna

from hpo.errors import UserError, did_you_mean
from hpo.sweep import Strategy

T = TypeVar("T")


def make_sampler(
    strategy: Strategy, *, seed: int, number: int, conditional: bool, draw: int = 0
) -> optuna.samplers.BaseSampler:
    """The sampler of one trial.

    Args:
        strategy: name and options from the sweep.
        seed: the study's seed.
        number: the trial's number.
        conditional: whether the space has conditions (TPE then models each part of it on its own).
        draw: how many suggestions for this trial were refused before.

    Raises:
        UserError: the class cannot be imported or does not take these options.
    """
    # Mixed by a checksum: seeds of neighbouring trials must not be neighbours themselves.
    options = dict(strategy.options)
    # A seed among the options takes the study's place; it must not make every trial the same.
    given = options.pop("seed", seed)
    if not isinstance(given, int):
        raise UserError(f"{strategy.name}: seed requires a whole number, got {given!r}")
    own = zlib.crc32(f"{given}/{number}/{draw}".encode() if draw else f"{given}/{number}".encode())
    match strategy.name:
        case "auto":  # ours; Optuna is told what was chosen, and chooses nothing
            return build(optuna.samplers.RandomSampler, Strategy("random"), {"seed": own})
        case "tpe":
            if conditional:
                options = {"multivariate": True, "group": True, **options}
            return build(optuna.samplers.TPESampler, strategy, {"seed": own, **options})
        case "gp":
            return build(optuna.samplers.GPSampler, strategy, {"seed": own, **options})
        case "cma-es":
            return build(
                optuna.samplers.CmaEsSampler,
                strategy,
                {"seed": own, "warn_independent_sampling": False, **options},
            )
        case "qmc":
            # One sequence for the whole study: the seed scrambles it, and the trial counts along it.
            defaults = {"seed": given, "scramble": True, "warn_independent_sampling": False}
            return build(optuna.samplers.QMCSampler, strategy, {**defaults, **options})
        case "random" | "grid":  # a grid's trials are known beforehand; nothing is left to sample
            return build(optuna.samplers.RandomSampler, strategy, {"seed": own, **options})
        case _:
            cls = import_class(strategy.name, optuna.samplers.BaseSampler)
            if "seed" in inspect.signature(cls).parameters:
                options = {"seed": own, **options}
            imported: optuna.samplers.BaseSampler = build(cls, strategy, options)
            return imported


def import_class(name: str, base: type) -> Any:
    """The class behind an import path.

    Args:
        name: "package.module:Class", or "optunahub:samplers/auto_sampler:AutoSampler" for a class of OptunaHub's
            registry (which the package optunahub fetches the first time).
        base: what it must be.

    Raises:
        UserError: it cannot be imported or is no `base`.
    """
    module_name, _, attribute = name.rpartition(":")
    try:
        found = getattr(_module(module_name), attribute)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"cannot import {module_name}: {error}.") from None
    except AttributeError:
        raise UserError(f"{module_name} has no class {attribute!r}.") from None
    except Exception as error:  # whatever the module raises while it is imported
        raise UserError(f"cannot import {name!r}: {type(error).__name__}: {error}.") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{name} is no optuna {base.__name__}.")
    return found


def _module(name: str) -> Any:
    registry, _, package = name.partition(":")
    if registry != "optunahub" or not package:
        return importlib.import_module(name)
    try:
        import optunahub
    except ImportError:
        raise UserError(f"{name} requires the package optunahub: pip install optunahub") from None
    try:
        return optunahub.load_module(package)
    except Exception as error:  # git's, the network's, the package's own: each says what it is on its last line
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise UserError(f"{name} could not be loaded: {last}") from None


def build(cls: Callable[..., T], strategy: Strategy, options: dict[str, Any]) -> T:
    """Construct an Optuna class; options it does not take, or refuses, are the user's mistake."""
    known = [name for name in inspect.signature(cls).parameters if name != "self"]
    for option in strategy.options:
        if option not in known:
            raise UserError(f"{strategy.name} has no option {option!r}.{did_you_mean(option, known)}")
    with warnings.catch_warnings():
        # Options that Optuna calls experimental are its notice to developers; the user has asked for them.
        warnings.simplefilter("ignore")
        try:
            return cls(**options)
        except (TypeError, ValueError) as error:
            raise UserError(f"{strategy.name}: {error}") from None
