"""Saved models answering: text continued, messages replied to, texts translated or classified.

What a search calls its serving module: MLflow's pyfunc loads a folder through `_load_pyfunc`, and the commands
that serve a model, talk with it or let it read a file use `describe` and `load`. The folder is a Hugging Face
folder as the objectives' `save` writes it (with a `task.json`) or one from elsewhere.

Light to import: torch comes with the first model. Knows nothing of MLflow, HTTP, terminals or files of data.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.serving.folders import TASKS, Saved, read, usage

if TYPE_CHECKING:
    from models.serving.classifications import Classifications
    from models.serving.continuations import Continuations
    from models.serving.dialogues import Dialogues
    from models.serving.translations import Translations

    Predictor = Classifications | Continuations | Dialogues | Translations

__all__ = ["TASKS", "Saved", "describe", "load"]

COLUMNS = {
    "language modelling": ("text", None),
    "translation": ("source", "target"),
    "classification": ("text", "label"),
    "chat": ("messages", "messages"),
}
"""What each task's model reads, and what says what is right: of a dialogue, its last reply."""

WRITERS = ("language modelling", "chat")
"""The tasks whose models write text of any kind, piece by piece."""


def describe(folder: str | Path) -> dict[str, Any]:
    """What a folder's model is for, from its small files alone: nothing heavy is imported.

    Returns `task` (one of `TASKS`), `writes` (whether it has `write`), `columns` (of its data: `input`, which it
    reads, and `target`, what is right, or None) and `python` (lines that load and use it with transformers, for a
    model card). Raises DataError for a folder that cannot be served.
    """
    saved = read(folder)
    given, right = COLUMNS[saved.task]
    columns = {"input": saved.column(given), "target": None if right is None else saved.column(right)}
    return {"task": saved.task, "writes": saved.task in WRITERS, "columns": columns, "python": usage(saved)}


def load(folder: str | Path) -> "Predictor":
    """The model of a folder, ready to answer; on the GPU where there is one.

    Raises DataError for a folder that cannot be served or loaded.
    """
    saved = read(folder)
    match saved.task:
        case "language modelling":
            from models.serving.continuations import Continuations

            return Continuations(saved)
        case "chat":
            from models.serving.dialogues import Dialogues

            return Dialogues(saved)
        case "translation":
            from models.serving.translations import Translations

            return Translations(saved)
        case _:
            from models.serving.classifications import Classifications

            return Classifications(saved)


def _load_pyfunc(path: str) -> "Predictor":
    """The hook that MLflow calls with the folder it was given as `data_path`."""
    return load(path)
