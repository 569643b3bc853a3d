"""A model that turns one text into another: an encoder-decoder, or a decoder that goes on after a separator."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from models.errors import DataError
from models.generation import generate
from models.preprocess import cleaner
from models.serving import folders, loading
from models.serving.folders import Saved

BATCH_SIZE = 16
PARAMETERS = ("beams", "max_new_tokens", "length_penalty")


class Translations:
    """A model that translates texts."""

    task = "translation"
    writes = False
    converses = False

    def __init__(self, saved: Saved) -> None:
        kind: Any = AutoModelForCausalLM if saved.is_decoder else AutoModelForSeq2SeqLM
        self.tokenizer, self.model = loading.load(saved, kind)
        self.context = saved.context
        self.settings = folders.generation(saved)
        self.separator: int | None = saved.card.get("separator") if saved.is_decoder else None
        if saved.is_decoder and self.separator is None:
            raise DataError(f"{saved.folder / 'task.json'}: a decoder that translates needs a separator, got none.")
        end = self.model.generation_config.eos_token_id
        end = self.tokenizer.eos_token_id if end is None else end
        if end is None:
            raise DataError(f"{saved.folder}: must name an end-of-text token, got none. Save the model anew.")
        self.end: int = end[0] if isinstance(end, list) else end
        pad = self.tokenizer.pad_token_id
        self.pad: int = self.end if pad is None else pad
        self._clean = cleaner(saved.preprocess)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """The translation of each text.

        model_input: a list of texts, one text, or a table whose column `source`, or only column, holds them.
        params: `beams`, `max_new_tokens`, `length_penalty` (those the model was tested with).
        """
        settings = dataclasses.replace(self.settings, **loading.check_parameters(params, PARAMETERS))
        return self._translate(loading.texts(loading.inputs(model_input, "source"), "texts"), settings)

    def rows(self, texts: Sequence[Any], *, batch_size: int, beams: int | None = None) -> Iterator[dict[str, Any]]:
        """Each text with its translation. beams: width of the search; None: that the model was tested with."""
        texts = loading.texts(texts, "texts")
        settings = self.settings if beams is None else dataclasses.replace(self.settings, beams=beams)
        for first in range(0, len(texts), batch_size):
            batch = texts[first : first + batch_size]
            for text, translation in zip(batch, self._translate(batch, settings), strict=True):
                yield {"source": text, "translation": translation}

    def targets(self, given: Sequence[Any]) -> list[Any]:
        """References, as they are. Raises DataError for what is no text."""
        return loading.texts(given, "references")

    def score(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Any] | None) -> dict[str, float]:
        """What the objective's test measures, by the same code; nothing without targets."""
        from models import scores

        if targets is None:
            return {}
        return scores.translation("test", [row["translation"] for row in rows], list(targets))

    def _translate(self, texts: Sequence[str], settings: Any) -> list[str]:
        answers = generate(
            self.model, [self._prompt(text) for text in texts], settings=settings, end=self.end, pad=self.pad
        )
        return [str(self.tokenizer.decode(answer, skip_special_tokens=True)).strip() for answer in answers]

    def _prompt(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer(
            self._clean(text), truncation=True, max_length=self.context, split_special_tokens=True
        )["input_ids"]
        # A tokenizer that ends a text with the separator has put it there already.
        return tokens if self.separator is None or tokens[-1:] == [self.separator] else [*tokens, self.separator]
