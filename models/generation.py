"""Text generated in batches, greedily or by beam search, through transformers' `generate`.

Prompts and answers are lists of token ids. An answer depends on its own prompt alone, never on which prompts
share its batch: padding is masked, every answer has the same bound, and a finished answer is left as it is.
(In fp32, for which it is tested. In bf16 the width of a batch can turn a tie between two tokens.)

Knows nothing of text, scores or data. Runs where the model is, in the precision that the caller has set.

Shape suffixes: B prompts, T tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from models import memory
from models.configuration import Generation
from models.errors import DataError, SettingError

BATCH_TOKENS = 16_384
"""How many tokens a batch holds, prompts, answers and beams together.
About where more gains nothing on a CPU core: width 128, 2 + 2 layers, beams 1 and 4."""

UNBOUNDED = 256
"""Longest answer of a model with relative positions when nobody says how long one may be."""


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    settings: Generation,
    end: int,
    pad: int,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[int]]:
    """The answer to each prompt, in the order of `prompts`: its tokens without prompt, end and padding.

    model: an encoder-decoder, for which prompts are sources, or a decoder alone; transformers' own model, not
    one that torch or PEFT has wrapped. Its mode and its saved way of generating are as before afterwards.
    settings: `beams` 1 is greedy. end: id of the token that ends an answer. pad: id of the padding, which
    fills batches and is never generated; may be `end`. batch_tokens: bound on prompts x beams x (longest
    prompt + max_new_tokens) of a batch, which holds at least one prompt (see `memory.rows`).

    Nothing is sampled, and nothing but the decoder's first token comes from the model's saved generation
    settings. Every answer may have `max_new_tokens`, whatever the length of its source: a bound by the length
    would cut answers that are rightly longer, such as a reply.

    A decoder alone reads the last `longest_prompt(model, settings)` tokens of a longer prompt. Raises DataError
    for an empty prompt and for a source longer than that, SettingError where the answers do not fit the model.
    """
    settings = replace(settings, max_new_tokens=longest_answer(model, settings))
    longest = longest_prompt(model, settings)
    _check(prompts, longest if model.config.is_encoder_decoder else None)
    # Within a decoder's positions the end of a dialogue matters more than its beginning.
    cut = [list(prompt) if longest is None else list(prompt[-longest:]) for prompt in prompts]
    asked = _configuration(model, settings, end, pad)
    row_tokens = settings.beams * longest_answer(model, settings)
    answers: list[list[int]] = [[] for _ in cut]
    with _as_asked(model):
        for batch in _batches([len(prompt) for prompt in cut], settings.beams, row_tokens, batch_tokens):
            generated = _answer(model, [cut[index] for index in batch], asked)
            for index, tokens in zip(batch, generated, strict=True):
                answers[index] = _until(tokens, {end, pad})
    return answers


def longest_prompt(model: PreTrainedModel, settings: Generation) -> int | None:
    """How many tokens of a prompt the model can read; None: as many as there are (relative positions).

    A decoder alone needs its positions for prompt and answer together, an encoder-decoder for each of them.
    Raises SettingError where an answer of `max_new_tokens` does not fit.
    """
    answer = longest_answer(model, settings)
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return None
    return positions if model.config.is_encoder_decoder else positions - answer


def longest_answer(model: PreTrainedModel, settings: Generation) -> int:
    """How many tokens an answer may have: as many as are asked for; else as many as the model has positions, of a
    decoder alone half as many; else `UNBOUNDED`.

    Raises SettingError where more are asked for than fit the model.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    asked = settings.max_new_tokens
    if positions is None:
        return asked or UNBOUNDED
    if asked is None:
        return positions if model.config.is_encoder_decoder else positions // 2
    most = positions if model.config.is_encoder_decoder else positions - 1  # one is for the prompt
    if asked > most:
        raise SettingError(
            f"generation.max_new_tokens: at most {most}, for the model has {positions} positions; got {asked}. "
            "Lower it."
        )
    return asked


def _check(prompts: Sequence[Sequence[int]], longest: int | None) -> None:
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"prompts[{index}]: at least one token, got none. Leave empty texts out.")
        if longest is not None and len(prompt) > longest:
            raise DataError(
                f"prompts[{index}]: at most the model's {longest} positions, got {len(prompt)} tokens. "
                "Cut the source or leave it out."
            )


_Settings: Any = GenerationConfig  # a class without types


def _configuration(model: Any, settings: Generation, end: int, pad: int) -> Any:
    asked = _Settings(
        do_sample=False,
        num_beams=settings.beams,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=end,
        pad_token_id=pad,
    )
    if settings.beams > 1:  # transformers warns of it otherwise
        asked.length_penalty = settings.length_penalty
    if pad != end:
        # Padding is no answer. Marian's published models forbid it too, by `bad_words_ids`.
        asked.suppress_tokens = [pad]
    if model.config.is_encoder_decoder:
        start = getattr(model.generation_config, "decoder_start_token_id", None)
        start = getattr(model.config, "decoder_start_token_id", None) if start is None else start
        if start is None:
            raise SettingError(
                "model.config.decoder_start_token_id: the token that a decoder begins with, got none. Set it."
            )
        asked.decoder_start_token_id = start
    return asked


@contextmanager
def _as_asked(model: Any) -> Iterator[None]:
    """The model in evaluation mode and without generation settings of its own, which transformers would put
    in wherever the given ones say nothing; both are given back at the end."""
    training = [module for module in model.modules() if module.training]
    saved = model.generation_config
    model.eval()
    model.generation_config = _Settings()
    try:
        yield
    finally:
        model.generation_config = saved
        for module in training:  # one by one: frozen parts may have been in evaluation mode
            module.training = True


def _batches(lengths: Sequence[int], beams: int, row_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of prompts of similar lengths. The longest come first: memory that does not suffice shows at
    once. row_tokens: tokens of all beams of one answer."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        rows = memory.rows(batch_tokens, beams * lengths[order[0]] + row_tokens)
        yield order[:rows]
        order = order[rows:]


def _answer(model: Any, prompts: Sequence[Sequence[int]], asked: Any) -> list[list[int]]:
    """One batch. Sources are padded on the right; a decoder's prompts on the left, so that answers begin in
    the same column, where transformers counts positions by the mask."""
    alone = not model.config.is_encoder_decoder
    width = max(map(len, prompts))
    tokens_BT = torch.full((len(prompts), width), asked.pad_token_id, dtype=torch.int64)
    mask_BT = torch.zeros_like(tokens_BT)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), None) if alone else slice(None, len(prompt))
        tokens_BT[row, place] = torch.tensor(prompt)
        mask_BT[row, place] = 1
    generated_BT = model.generate(
        tokens_BT.to(model.device),
        attention_mask=mask_BT.to(model.device),
        generation_config=asked,
    )
    first = width if alone else 1
    answers: list[list[int]] = generated_BT[:, first:].tolist()
    return answers


def _until(tokens: list[int], last: set[int]) -> list[int]:
    return next((tokens[:place] for place, token in enumerate(tokens) if token in last), tokens)
