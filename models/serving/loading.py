"""A saved model and its tokenizer in memory, and the small questions that every predictor asks of input.

Knows no task.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoTokenizer

from models.errors import DataError, nearest
from models.serving.folders import Saved


def load(saved: Saved, model_class: Any) -> tuple[Any, Any]:
    """The tokenizer and the model of a folder, the model in evaluation mode, on the GPU where there is one.

    model_class: one of transformers' Auto classes. Raises DataError where the folder's files do not make a
    whole model: no weight is ever made up.
    """
    if not (saved.folder / "tokenizer.json").is_file():
        raise DataError(f"{saved.folder}: must have a tokenizer.json, got none. Save the tokenizer with the model.")
    report = logging.getLogger("transformers.modeling_utils")
    level = report.level
    report.setLevel(logging.ERROR)  # its table of missing weights is said in one line below
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(saved.folder)
        model, found = model_class.from_pretrained(saved.folder, output_loading_info=True)
    except Exception as error:  # whatever a broken file makes the libraries raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{saved.folder}: cannot be loaded: {first} Save the model anew.") from error
    finally:
        report.setLevel(level)
    if missing := sorted(found["missing_keys"]):
        raise DataError(
            f"{saved.folder}: must hold every weight of the model, got none for {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}. Save the model anew."
        )
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").train(False)


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
