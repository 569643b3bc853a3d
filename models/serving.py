"""A saved model answering prompts: what MLflow's pyfunc loads as `loader_module`.

Knows nothing of MLflow, and nothing of training: it needs a Hugging Face folder as `save` writes it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.errors import DataError, nearest

PARAMETERS = ("max_new_tokens", "temperature", "top_k", "seed")


class Continuations:
    """A causal model that continues prompts."""

    def __init__(self, folder: str | Path) -> None:
        """folder: as `models.language_modelling.save` writes it. The model goes to the GPU where there is
        one."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").train(False)
        self.context: int = model.config.max_position_embeddings

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """What the model writes after each prompt, without the prompt.

        model_input: a list of prompts, one prompt, or a table (pandas DataFrame or Series) whose column
        `prompt`, or only column, holds them. params: `max_new_tokens` (at least 1; that of the generation
        settings), `temperature` (at least 0, 0 takes the likeliest token; 1), `top_k` (at least 1; all
        tokens), `seed` (unset: not repeatable).

        A prompt longer than the context is read from its end. Raises DataError for other input or parameters.
        """
        given = dict(params or {})
        for name in given:
            if name not in PARAMETERS:
                raise DataError(f"params: {name!r} must be one of {', '.join(PARAMETERS)}.{nearest(name, PARAMETERS)}")
        if given.get("seed") is not None:
            torch.manual_seed(int(given["seed"]))
        new_tokens = int(given.get("max_new_tokens") or self.model.generation_config.max_new_tokens)
        temperature = float(given.get("temperature", 1.0))
        if new_tokens < 1 or temperature < 0:
            raise DataError(
                f"params: max_new_tokens at least 1 and temperature at least 0, got {new_tokens} and {temperature}."
            )
        sampling: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            sampling |= {"temperature": temperature, "top_k": int(given.get("top_k") or 0)}
        return [self._continue(prompt, new_tokens, sampling) for prompt in _prompts(model_input)]

    @torch.inference_mode()
    def _continue(self, prompt: str, new_tokens: int, sampling: Mapping[str, Any]) -> str:
        """Generate in stretches of at most half the context, each reading the last of what is there: learned
        positions end at the context, and `generate` would run over them."""
        end = self.model.generation_config.eos_token_id
        tokens: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"] or [end]
        start = len(tokens)
        while len(tokens) - start < new_tokens:
            stretch = min(new_tokens - (len(tokens) - start), max(1, self.context // 2))
            read = tokens[-(self.context - stretch) :]
            input_ids = torch.tensor([read], device=self.model.device)
            output = self.model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=stretch,
                pad_token_id=end,
                **sampling,
            )
            tokens += output[0, len(read) :].tolist()
            if tokens[-1] == end:
                break
        text: str = self.tokenizer.decode(tokens[start:], skip_special_tokens=True)
        return text


def _load_pyfunc(path: str) -> Continuations:
    """The hook that MLflow calls with the folder it was given as `data_path`."""
    return Continuations(path)


def _prompts(model_input: Any) -> list[str]:
    if isinstance(model_input, str):
        return [model_input]
    if hasattr(model_input, "columns"):  # a table, without importing pandas to ask
        columns = list(model_input.columns)
        if "prompt" not in columns and len(columns) != 1:
            raise DataError(f"model_input: must have a column 'prompt', got {', '.join(map(repr, columns))}.")
        model_input = model_input["prompt" if "prompt" in columns else columns[0]]
    prompts = list(model_input)
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise DataError(f"model_input: prompts must be text, got {type(prompt).__name__} {prompt!r}.")
    return prompts
