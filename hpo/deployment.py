"""A model to be used: which folder a name means, and what makes it answer.

A target is a study's name (its promoted model), a folder, or `models:/NAME@alias` in the model registry. What
makes a folder answer is its serving module, named in its `hpo.json`; this room imports it by that name, as an
objective is, and knows nothing of what is behind it. Knows nothing of HTTP, terminals or files of data either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpo.errors import UserError, did_you_mean
from hpo.folder import StudyFolder, find_study, study_names
from hpo.objective import load_module
from hpo.promote import model_folder, promotions

SERVING = "models.serving"
"""The serving module of a folder that names none."""

REGISTRY = "models:/"


class Written(Protocol):
    """A text that a model wrote."""

    @property
    def text(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def finish(self) -> str:
        """`stop` or `length`."""


class Served(Protocol):
    """A loaded model, as a serving module's `load` gives it. Every method raises ValueError, in words, for input
    it cannot take. It is asked by one thread at a time.

    Attributes:
        task: what it is for, in words.
        writes: whether it has `count` and `write`.
        converses: whether their prompt is a list of messages ({"role", "content"}) instead of a text; it then
            has `fit` too.
        context: longest sequence in tokens.
    """

    @property
    def task(self) -> str: ...
    @property
    def writes(self) -> bool: ...
    @property
    def converses(self) -> bool: ...
    @property
    def context(self) -> int: ...

    def count(self, prompt: Any) -> int:
        """Tokens of a prompt."""

    def write(self, prompt: Any, *, on_text: Callable[[str], None] | None = None, **sampling: Any) -> Written:
        """Write after a prompt.

        on_text is told each piece as it comes, and ends the writing by raising. sampling: `max_new_tokens`,
        `temperature`, `top_p`, `top_k`, `stop`, `seed`, and of a text `beyond` (longer than the context).
        """

    def fit(self, prompt: Any, *, new_tokens: int | None = None) -> list[Any]:
        """Messages without the oldest ones, as far as the context asks for it."""

    def rows(self, inputs: Sequence[Any], *, batch_size: int, beams: int | None = None) -> Iterator[dict[str, Any]]:
        """A row of results for each input, in their order."""

    def targets(self, given: Sequence[Any]) -> list[Any]:
        """What is right, as `score` takes it, from values of the target column."""

    def score(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Any] | None) -> dict[str, float]:
        """Metrics of rows against what is right; with None, those that need nothing of the kind."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that can be used.

    Attributes:
        name: what it is called: the study, the registered model, or the folder.
        folder: its files.
        serving: import path of the module that makes it answer.
    """

    name: str
    folder: Path
    serving: str

    def describe(self) -> dict[str, Any]:
        """{"task", "writes", "columns", "python"} of the model, before anything heavy is imported.

        Raises:
            UserError: the folder cannot be served.
        """
        described: dict[str, Any] = self._ask("describe")
        return described

    def load(self) -> Served:
        """The model, ready to answer.

        Raises:
            UserError: the folder cannot be served or loaded.
        """
        served: Served = self._ask("load")
        return served

    def _ask(self, function: str) -> Any:
        module = load_module(self.serving)
        if not callable(getattr(module, function, None)):
            raise UserError(
                f"{self.serving} has no function {function}(); see `hpo.objective` for what a serving module has."
            )
        try:
            return getattr(module, function)(self.folder)
        except ValueError as error:
            raise UserError(str(error)) from error


def find(target: str, studies: Path, promotion: int | None = None) -> Deployment:
    """The model that a target means.

    Args:
        target: a study's name, a folder, or `models:/NAME@alias` or `models:/NAME/VERSION`.
        studies: where studies live; the model registry is beside them unless MLFLOW_TRACKING_URI is set.
        promotion: number of the study's promotion; its newest finished one by default.

    Raises:
        UserError: there is no such study, promotion, folder or model.
        HpoError: the registry cannot be reached.
    """
    is_study = (studies / target).parent == studies and StudyFolder(studies / target).exists
    if promotion is not None and not is_study:
        if target.startswith(REGISTRY) or os.sep in target:
            raise UserError(f"--promotion counts the promotions of a study, and {target} is none.")
        find_study(studies, target)
    if target.startswith(REGISTRY):
        return _registered(target, studies)
    if is_study:
        return _deployed(target, _promoted(StudyFolder(studies / target), promotion))
    folder = Path(target).expanduser()
    if folder.is_dir():
        return _deployed(_name(folder), _with_config(folder))
    if os.sep in target:
        raise UserError(f"no folder {target}.{did_you_mean(folder.name, _neighbours(folder))}")
    hint = did_you_mean(target, study_names(studies)) or " `hpo list` shows what is there."
    raise UserError(f"no study {target!r} in {studies}, and no folder of that name.{hint}")


def instructions(study: str, folder: Path) -> list[str]:
    """How a promoted model is used, in Markdown, for its card; nothing where its serving module does not say."""
    serving = _served_by(folder)
    if serving is None or not callable(getattr(load_module(serving), "describe", None)):
        return []
    described = Deployment(study, folder, serving).describe()
    place = folder.absolute().relative_to(folder.absolute().parents[4])  # studies/NAME/promotions/NNNN/model
    chat = [f"hpo chat {study}                # talk with it in the terminal"] if described["writes"] else []
    return [
        "```bash",
        f"hpo serve {study}               # an HTTP API",
        *chat,
        f"hpo predict {study} FILE        # a file of texts: .txt, .jsonl, .csv or .parquet",
        "```",
        "",
        "```python",
        f'folder = "{place}"',
        *str(described["python"]).splitlines(),
        "```",
    ]


def _promoted(folder: StudyFolder, number: int | None) -> Path:
    """The model folder of a study's promotion."""
    made = promotions(folder)
    finished = [promotion for promotion in made if promotion.done]
    if number is None:
        if not finished:
            begun = "no promotion is finished" if made else "nothing of it was promoted"
            raise UserError(f"study {folder.name!r}: {begun} yet. First:  hpo promote {folder.name}")
        number = finished[-1].number
    elif number not in {promotion.number for promotion in made}:
        there = f"it has 1 to {made[-1].number}" if made else f"it has none. First:  hpo promote {folder.name}"
        raise UserError(f"study {folder.name!r} has no promotion {number}; {there}")
    elif number not in {promotion.number for promotion in finished}:
        raise UserError(
            f"promotion {number} of study {folder.name!r} is not finished. Go on:  hpo promote {folder.name}"
        )
    model = model_folder(StudyFolder(folder.promotion(number)))
    if not model.exists():  # an imported study
        raise UserError(
            f"{model} is not here; models travel with a study where it is packed with `hpo export --checkpoints`. "
            f"Train it here:  hpo promote {folder.name}"
        )
    return _with_config(model)


def _registered(target: str, studies: Path) -> Deployment:
    from hpo.operation import MlflowSettings
    from hpo.track.mlflow.downloads import fetch
    from hpo.track.mlflow.store import tracking_uri

    name, folder = fetch(tracking_uri(MlflowSettings(), studies), target)
    return _deployed(name, _with_config(folder))


def _deployed(name: str, folder: Path) -> Deployment:
    return Deployment(name, folder, _served_by(folder) or SERVING)


def _served_by(folder: Path) -> str | None:
    """The serving module that a folder's hpo.json names."""
    file = folder / "hpo.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        serving = content.get("serving")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    return str(serving) if serving else None


def _with_config(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    inside = [path.parent for path in sorted(folder.glob("*/config.json"))]
    hint = f" Did you mean {inside[0]}?" if inside else ""
    raise UserError(f"{folder} has no config.json: it is no model's folder.{hint}")


def _name(folder: Path) -> str:
    """studies/quickstart/promotions/0001/model is called quickstart; any other folder by its own name."""
    parts = folder.resolve().parts
    is_promoted = len(parts) > 4 and parts[-1] == "model" and parts[-3] == "promotions"
    return parts[-4] if is_promoted else parts[-1]


def _neighbours(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
