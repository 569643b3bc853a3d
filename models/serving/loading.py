"""A saved model and its tokenizer in memory, and the small questions that every predictor asks of input.

Knows no task.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from models.errors import DataError, nearest
from models.serving.folders import Saved


def load(saved: Saved, model_class: Any) -> tuple[Any, Any]:
    """The tokenizer and the model of a folder, the model in evaluation mode, on the GPU where there is one.

    model_class: one of transformers' Auto classes. Raises DataError where the folder's files do not make a
    whole model: no weight is ever made up.
    """
    if not (saved.folder / "tokenizer.json").is_file():
        raise DataError(f"{saved.folder}: must have a tokenizer.json, got none. Save the tokenizer with the model.")
    try:
        with _quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(saved.folder)
            model, found = model_class.from_pretrained(saved.folder, output_loading_info=True)
    except Exception as error:  # whatever a broken file makes the libraries raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{saved.folder}: cannot be loaded: {first} Save the model anew.") from error
    if missing := sorted(found["missing_keys"]):
        raise DataError(
            f"{saved.folder}: must hold every weight of the model, got none for {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}. Save the model anew."
        )
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").train(False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and warnings: what it finds missing is said in one line instead."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def check_parameters(params: Mapping[str, Any] | None, known: Sequence[str]) -> dict[str, Any]:
    """A copy of MLflow's `params`. Raises DataError for a name that is not known."""
    given = dict(params or {})
    for name in given:
        if name not in known:
            raise DataError(f"params: {name!r} must be one of {', '.join(known)}.{nearest(name, known)}")
    return given


def inputs(model_input: Any, column: str) -> list[Any]:
    """The inputs of MLflow's `model_input`: a list, one text, or a table (pandas DataFrame or Series) whose
    column `column`, or only column, holds them."""
    if isinstance(model_input, str):
        return [model_input]
    if hasattr(model_input, "columns"):  # a table, without importing pandas to ask
        columns = list(model_input.columns)
        if column not in columns and len(columns) != 1:
            raise DataError(f"model_input: must have a column {column!r}, got {', '.join(map(repr, columns))}.")
        model_input = model_input[column if column in columns else columns[0]]
    return list(model_input)


def texts(given: Sequence[Any], what: str) -> list[str]:
    """`given`, which must be texts. what: their name in the message. Raises DataError naming the first that is
    none."""
    for text in given:
        if not isinstance(text, str):
            raise DataError(f"model_input: {what} must be text, got {type(text).__name__} {text!r}.")
    return list(given)
