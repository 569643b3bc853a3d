"""A classifier naming the label of a text, or its labels, with probabilities."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from models.errors import DataError, nearest
from models.preprocess import cleaner
from models.serving import loading
from models.serving.folders import Saved

BATCH_SIZE = 32


class Classifications:
    """A model that classifies texts: one label each, or (`multi_label`) any number of them."""

    task = "classification"
    writes = False
    converses = False

    def __init__(self, saved: Saved) -> None:
        self.tokenizer, self.model = loading.load(saved, AutoModelForSequenceClassification)
        self.context = saved.context
        own = self.model.config
        self.labels: list[str] = [str(label) for label in saved.card.get("labels") or _named(own.id2label)]
        if len(self.labels) != own.num_labels:
            raise DataError(
                f"{saved.folder / 'task.json'}: labels must name the model's {own.num_labels} outputs, got "
                f"{len(self.labels)}. Save the model anew."
            )
        self.multi_label = bool(saved.card.get("multi_label", own.problem_type == "multi_label_classification"))
        self.threshold = float(saved.card.get("threshold", 0.5))
        self.separator = str(saved.card.get("label_separator", ","))
        self._clean = cleaner(saved.preprocess)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """For each text its `label` and `probability` (of several labels, `labels`) and all `probabilities`.

        model_input: a list of texts, one text, or a table whose column `text`, or only column, holds them.
        """
        loading.check_parameters(params, ())
        rows = self.rows(loading.inputs(model_input, "text"), batch_size=BATCH_SIZE)
        return [{name: value for name, value in row.items() if name != "text"} for row in rows]

    def rows(self, texts: Sequence[Any], *, batch_size: int, beams: int | None = None) -> Iterator[dict[str, Any]]:
        """Each text with its label, that one's probability, and the probabilities of all."""
        if beams is not None:
            raise DataError("beams: only for models that translate, got a classifier. Leave it out.")
        texts = loading.texts(texts, "texts")
        if self.tokenizer.pad_token_id is None or self.model.config.pad_token_id is None:
            batch_size = 1  # a model from elsewhere that cannot tell padding from text
        for first in range(0, len(texts), batch_size):
            batch = texts[first : first + batch_size]
            for text, chances in zip(batch, self._probabilities(batch), strict=True):
                yield {"text": text, **self._named(chances)}

    def targets(self, given: Sequence[Any]) -> list[Any]:
        """Labels of the data as the model's: a label, or with `multi_label` a list of them.

        given: text or whole numbers; several labels as a list or in one text with the data's separator between
        them. Raises DataError naming the first label that the model does not know.
        """
        return [self._target(value) for value in given]

    def score(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Any] | None) -> dict[str, float]:
        """What the objective's test measures, by the same code; nothing without targets."""
        from models import scores

        if targets is None:
            return {}
        index = {label: place for place, label in enumerate(self.labels)}
        if self.multi_label:
            predicted = np.array([[int(label in row["labels"]) for label in self.labels] for row in rows])
            actual = np.array([[int(label in labels) for label in self.labels] for labels in targets])
        else:
            predicted = np.array([index[row["label"]] for row in rows])
            actual = np.array([index[label] for label in targets])
        return scores.classification("test", predicted, actual, self.labels)

    @torch.inference_mode()
    def _probabilities(self, texts: Sequence[str]) -> list[list[float]]:
        inputs = self.tokenizer(
            [self._clean(text) for text in texts],
            truncation=True,
            max_length=self.context,
            padding=len(texts) > 1,
            split_special_tokens=True,
            return_tensors="pt",
        )
        accepted = {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        logits_BL = self.model(**accepted).logits.float()
        chances_BL = logits_BL.sigmoid() if self.multi_label else logits_BL.softmax(-1)
        chances: list[list[float]] = chances_BL.cpu().tolist()
        return chances

    def _named(self, chances: Sequence[float]) -> dict[str, Any]:
        probabilities = dict(zip(self.labels, chances, strict=True))
        if self.multi_label:
            labels = [label for label, chance in probabilities.items() if chance >= self.threshold]
            return {"labels": labels, "probabilities": probabilities}
        best = max(range(len(chances)), key=chances.__getitem__)
        return {"label": self.labels[best], "probability": chances[best], "probabilities": probabilities}

    def _target(self, value: Any) -> Any:
        if not self.multi_label:
            return self._known(value)
        if isinstance(value, str):
            value = [part.strip() for part in value.split(self.separator) if part.strip()]
        if not isinstance(value, Sequence):
            raise DataError(f"labels: must be a list or a text, got {value!r}. Mend the row.")
        return [self._known(label) for label in value]

    def _known(self, value: Any) -> str:
        label = str(value).strip() if isinstance(value, str) else str(value)
        if label not in self.labels:
            hint = nearest(label, self.labels) or f" Known: {', '.join(self.labels[:12])}."
            raise DataError(f"label {label!r} is none that the model knows.{hint}")
        return label


def _named(id2label: Mapping[int, str]) -> list[str]:
    return [id2label[index] for index in sorted(id2label)]
