"""What a model's folder says of its model: the task, the text it reads, how it is loaded.

`task.json` says it where an objective saved the model; a folder from elsewhere is judged by its `config.json`
and its tokenizer. Reads small JSON files and nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from models.configuration import Generation, Preprocess
from models.errors import DataError, nearest

TASKS = ("language modelling", "translation", "classification", "chat")
"""What a model can be for."""

_FILTERS = ("min_words", "max_words", "deduplicate", "order")
"""What of `Preprocess` says nothing of a single text."""

_ANY_LENGTH = 1024
"""Context of a model from elsewhere whose positions have no end, such as T5's."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A model's folder as it describes itself.

    task: one of `TASKS`. context: longest sequence in tokens the model reads. preprocess: what its text went
    through in training. card: `task.json` as it is, empty for a folder from elsewhere. config: `config.json`.
    """

    folder: Path
    task: str
    context: int
    preprocess: Preprocess = field(default_factory=Preprocess)
    card: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_decoder(self) -> bool:
        """Whether it is a decoder alone."""
        return any(name.endswith("ForCausalLM") or name == "GPT2LMHeadModel" for name in _architectures(self.config))

    def column(self, name: str) -> str:
        """The data's column for `text`, `label`, `source`, `target` or `messages`."""
        return str(self.card.get(f"{name}_column") or name)


def read(folder: str | Path) -> Saved:
    """Read a folder's description.

    Raises DataError for a folder without config.json, for one whose files cannot be read, and for a model of
    no known task.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: must be a model's folder with a config.json, got none. Name another folder.")
    config = _json(folder / "config.json")
    card = _json(folder / "task.json") if (folder / "task.json").is_file() else {}
    task = card.get("task") or _judged(folder, config)
    if task not in TASKS:
        raise DataError(
            f"{folder / 'task.json'}: task must be one of {', '.join(TASKS)}, got {task!r}.{nearest(str(task), TASKS)}"
        )
    return Saved(
        folder=folder,
        task=task,
        context=int(card.get("context") or _context(folder, config)),
        preprocess=_settings(folder, card, "preprocess", Preprocess),
        card=card,
        config=config,
    )


def generation(saved: Saved) -> Generation:
    """How the model's text was generated where it was scored; the defaults for a folder from elsewhere."""
    settings: Generation = _settings(saved.folder, saved.card, "generation", Generation)
    return settings


def _settings(folder: Path, card: Mapping[str, Any], section: str, kind: Any) -> Any:
    given = card.get(section) or {}
    known = {item.name for item in fields(kind)}
    if unknown := [name for name in given if name not in known]:
        raise DataError(
            f"{folder / 'task.json'}: {section} has {unknown[0]!r}, which this version does not know. "
            "Use the version that wrote the folder, or a later one."
        )
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: must be JSON, got {error}. Save the model anew.") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: must be a JSON object, got {type(content).__name__}. Save the model anew.")
    return content


def _architectures(config: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in config.get("architectures") or ()]


def _judged(folder: Path, config: Mapping[str, Any]) -> str:
    """The task of a folder without task.json, by the class its config names."""
    names = _architectures(config)
    for name in names:
        if name.endswith("ForSequenceClassification"):
            return "classification"
        if name.endswith(("ForConditionalGeneration", "MTModel")):
            return "translation"
        if name.endswith(("ForCausalLM", "LMHeadModel")):
            return "chat" if _has_chat_template(folder) else "language modelling"
    raise DataError(
        f"{folder / 'config.json'}: must be a model that writes, translates or classifies text, got architectures "
        f"{', '.join(names) or 'none'}. Name another folder."
    )


def _has_chat_template(folder: Path) -> bool:
    settings = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        settings.is_file() and bool(_json(settings).get("chat_template"))
    )


def _context(folder: Path, config: Mapping[str, Any]) -> int:
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(config.get(name), int):
            return int(config[name])
    settings = folder / "tokenizer_config.json"
    longest = _json(settings).get("model_max_length") if settings.is_file() else None
    # Tokenizers write 10^30 where there is no bound.
    return int(longest) if isinstance(longest, int | float) and 0 < longest < 1e6 else _ANY_LENGTH


_LOADING = """\
from transformers import {model_class}, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained(folder), {model_class}.from_pretrained(folder)
"""

_USES = {
    "language modelling": """\
prompt = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))""",
    "chat": """\
messages = [{"role": "user", "content": "Hello"}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
reply = model.generate(**prompt)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(reply, skip_special_tokens=True))""",
    "classification": """\
inputs = tokenizer("a text", truncation=True, return_tensors="pt")
print(model.config.id2label[model(**inputs).logits.argmax().item()])""",
    "several labels": """\
inputs = tokenizer("a text", truncation=True, return_tensors="pt")
probabilities = model(**inputs).logits.sigmoid()[0].tolist()
print([label for index, label in model.config.id2label.items() if probabilities[index] >= THRESHOLD])""",
    "translation": """\
source = tokenizer("a text", truncation=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**source)[0], skip_special_tokens=True))""",
    "translation by a decoder": """\
source = tokenizer("a text", truncation=True)["input_ids"]
source += [SEPARATOR] if source[-1] != SEPARATOR else []  # what stands between a text and its translation
output = model.generate(torch.tensor([source]))[0, len(source) :]
print(tokenizer.decode(output, skip_special_tokens=True))""",
}


def usage(saved: Saved) -> str:
    """Python lines that load the folder (a variable `folder`) with transformers and use the model once."""
    use, model_class = _USES[saved.task], "AutoModelForCausalLM"
    loading = _LOADING
    if saved.task == "classification":
        model_class = "AutoModelForSequenceClassification"
        if saved.card.get("multi_label"):
            use = _USES["several labels"].replace("THRESHOLD", str(saved.card.get("threshold", 0.5)))
    elif saved.task == "translation" and saved.is_decoder:
        use = _USES["translation by a decoder"].replace("SEPARATOR", str(saved.card.get("separator")))
        loading = "import torch\n" + loading
    elif saved.task == "translation":
        model_class = "AutoModelForSeq2SeqLM"
    if saved.preprocess != Preprocess(**{name: getattr(saved.preprocess, name) for name in _FILTERS}):
        use = "# Its text was cleaned in training (task.json, preprocess), which these lines do not do.\n" + use
    return loading.replace("{model_class}", model_class) + use
