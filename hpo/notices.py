"""What Optuna says and how it fails, as the user of a sweep is to see it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from hpo.errors import HpoError


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """An error inside Optuna as one line that says which part of the sweep it comes from."""
    try:
        yield
    except (HpoError, AssertionError):
        raise
    except Exception as error:
        raise HpoError(f"{what} failed: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna's notices on experimental features and step ranges are not for the user of a sweep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
