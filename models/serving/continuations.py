"""A language model continuing texts, and saying how likely they are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from models.errors import DataError
from models.metrics import perplexity
from models.preprocess import cleaner
from models.serving import loading
from models.serving.folders import Saved
from models.serving.writing import OnText, Sampling, Writer, Written

PARAMETERS = ("max_new_tokens", "temperature", "top_k", "seed")


class Continuations:
    """A causal model that continues prompts."""

    task = "language modelling"
    writes = True
    converses = False

    def __init__(self, saved: Saved) -> None:
        self.tokenizer, self.model = loading.load(saved, AutoModelForCausalLM)
        self.context = saved.context
        self._clean = cleaner(saved.preprocess)
        self._writer = Writer(self.model, self.tokenizer, self.context)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """What the model writes after each prompt, without the prompt.

        model_input: a list of prompts, one prompt, or a table (pandas DataFrame or Series) whose column
        `prompt`, or only column, holds them. params: `max_new_tokens` (at least 1; that of the generation
        settings), `temperature` (at least 0, 0 takes the likeliest token; 1), `top_k` (at least 1; all
        tokens), `seed` (unset: not repeatable).

        A prompt longer than the context is read from its end. Raises DataError for other input or parameters.
        """
        given = loading.check_parameters(params, PARAMETERS)
        seed = given.pop("seed", None)
        sampling = Sampling(**{"temperature": 1.0, "top_k": 0, **given})
        if seed is not None:
            torch.manual_seed(int(seed))
        prompts = loading.texts(loading.inputs(model_input, "prompt"), "prompts")
        return [self._writer.write(self._tokens(prompt), sampling, beyond=True).text for prompt in prompts]

    def count(self, prompt: str) -> int:
        """Tokens of a prompt."""
        return len(self._tokens(prompt))

    def write(self, prompt: str, *, on_text: OnText | None = None, beyond: bool = False, **sampling: Any) -> Written:
        """Continue a prompt (see `models.serving.writing`). sampling: the fields of `Sampling`."""
        return self._writer.write(self._tokens(prompt), Sampling(**sampling), on_text=on_text, beyond=beyond)

    def rows(self, texts: Sequence[Any], *, batch_size: int, beams: int | None = None) -> Iterator[dict[str, Any]]:
        """Each text with its `loss` (nats a token), `perplexity` and `tokens`; None where a text has no token
        that could be predicted from one before it.

        Measured as `models.next_token.evaluate` measures a split: every token but the first is predicted once,
        in windows of the context that do not overlap.
        """
        if beams is not None:
            raise DataError("beams: only for models that translate, got a language model. Leave it out.")
        for text in loading.texts(texts, "texts"):
            tokens = self._tokens(text)
            loss = self._loss(tokens, batch_size) if len(tokens) > 1 else None
            yield {
                "text": text,
                "loss": loss,
                "perplexity": None if loss is None else perplexity(loss),
                "tokens": len(tokens),
            }

    def targets(self, given: Sequence[Any]) -> list[Any]:
        """A language model's texts are their own targets."""
        return list(given)

    def score(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Any] | None) -> dict[str, float]:
        """Loss and perplexity over all texts, each predicted token counted once."""
        measured = [(row["loss"], row["tokens"] - 1) for row in rows if row["loss"] is not None]
        predicted = sum(tokens for _, tokens in measured)
        if not predicted:
            return {}
        loss = sum(loss * tokens for loss, tokens in measured) / predicted
        tokens = float(sum(row["tokens"] for row in rows))
        return {"test/loss": loss, "test/perplexity": perplexity(loss), "test/tokens": tokens}

    @torch.no_grad()
    def _loss(self, tokens: list[int], batch_size: int) -> float:
        from models.batches import windows
        from models.next_token import summed_loss

        array: Any = np.asarray(tokens, dtype=np.uint32)
        sums = [
            summed_loss(self.model, tokens_BS.to(self.model.device))
            for tokens_BS in windows(array, context=self.context, batch_tokens=batch_size * self.context)
        ]
        return torch.stack(sums).cpu().double().sum().item() / (len(tokens) - 1)

    def _tokens(self, text: str) -> list[int]:
        """Text is text: a special token's name in it is read letter by letter, as in training."""
        tokens: list[int] = self.tokenizer(self._clean(text), add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return tokens
