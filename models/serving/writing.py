"""One text written token by token, by transformers' `generate`: sampling, stop strings, text as it comes.

Knows token ids and how they become text, not what the text is for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from models.errors import DataError

OnText = Callable[[str], None]
"""Told each piece of text as it is written; may be told "" (a token that is no text yet), and may raise to end
the writing: the exception comes out of `write`."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How text is written; None takes what the model's own generation settings say.

    max_new_tokens: at least 1. temperature: at least 0; 0 takes the likeliest token. top_p: in [0, 1]. top_k:
    at least 0; 0 is all tokens. stop: texts at which to end, themselves left out. seed: unset, not repeatable.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise DataError(
                f"sampling: max_new_tokens at least 1, got {self.max_new_tokens}. Ask for one token or more."
            )
        if self.temperature is not None and self.temperature < 0:
            raise DataError(f"sampling: temperature at least 0, got {self.temperature}. 0 takes the likeliest token.")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise DataError(f"sampling: top_p from 0 to 1, got {self.top_p}. 1 takes all tokens.")
        if self.top_k is not None and self.top_k < 0:
            raise DataError(f"sampling: top_k at least 0, got {self.top_k}. 0 takes all tokens.")

    def settings(self) -> dict[str, Any]:
        """As arguments of transformers' `generate`."""
        given: dict[str, Any] = {}
        if self.temperature is not None:
            given["do_sample"] = self.temperature > 0
        if self.temperature:
            given["temperature"] = self.temperature
        if self.temperature != 0:  # transformers warns of what a greedy choice has no use for
            given |= {name: value for name in ("top_p", "top_k") if (value := getattr(self, name)) is not None}
        return given


@dataclass(frozen=True)
class Written:
    """What was written.

    prompt_tokens, tokens: how many were read and written, the end-of-text token included. finish: `stop` (the
    model ended, or a stop string came) or `length` (no more was asked for, or fits).
    """

    text: str
    prompt_tokens: int
    tokens: int
    finish: str


class Writer:
    """A causal model writing one text at a time. Not for several threads at once: the seed is torch's own."""

    def __init__(self, model: Any, tokenizer: Any, context: int) -> None:
        """context: longest sequence in tokens that the model reads."""
        self.model = model
        self.tokenizer = tokenizer
        self.context = context
        # One text token by token: a beam search has none to tell before it is done.
        model.generation_config.num_beams = 1
        model.generation_config.length_penalty = None
        ends = model.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self.ends: list[int] = [] if ends is None else ends if isinstance(ends, list) else [ends]

    @torch.inference_mode()
    def write(
        self, prompt: Sequence[int], sampling: Sampling, *, on_text: OnText | None = None, beyond: bool = False
    ) -> Written:
        """Write after the tokens of a prompt.

        beyond: whether prompt and text together may be longer than the context; the model then reads the end
        of what there is. Else the text ends where the context does. Raises DataError for an empty prompt where
        the model has no end-of-text token, and for one that leaves no room.
        """
        tokens = list(prompt) or self.ends[:1]
        if not tokens:
            raise DataError("prompt: must not be empty, for the model has no end-of-text token. Give a text.")
        room = self.context - len(tokens)
        if room < 1 and not beyond:
            raise DataError(f"prompt: at most {self.context - 1} tokens, got {len(tokens)}. Give a shorter one.")
        asked = sampling.max_new_tokens or self.model.generation_config.max_new_tokens or max(1, self.context // 2)
        limit = asked if beyond else min(asked, room)
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        listener = _Listener(self.tokenizer, self.ends, sampling.stop, on_text)
        start = len(tokens)
        while len(tokens) - start < limit and not listener.done:
            # Stretches of at most half the context, each reading the last of what is there: learned positions
            # end at the context, and `generate` would run over them.
            stretch = min(limit - (len(tokens) - start), max(1, self.context // 2) if beyond else limit)
            tokens = self._stretch(tokens, stretch, sampling.settings(), listener)
        return Written(listener.finish(), len(prompt), len(tokens) - start, "stop" if listener.done else "length")

    def _stretch(self, tokens: list[int], count: int, settings: Mapping[str, Any], listener: "_Listener") -> list[int]:
        read = tokens[-(self.context - count) :] if len(tokens) + count > self.context else tokens
        input_ids = torch.tensor([read], device=self.model.device)
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=count,
            pad_token_id=self.ends[0] if self.ends else 0,  # of one text nothing is padded; unset, it warns
            stopping_criteria=StoppingCriteriaList([listener]),
            **settings,
        )
        return [*tokens, *output[0, len(read) :].tolist()]


class _Listener(StoppingCriteria):
    """Hears every token from `generate`, which asks it whether to go on, and makes text of them.

    A token may be part of a character, and a text part of a stop string: such ends are held back until what
    follows decides.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int], stop: Sequence[str], on_text: OnText | None) -> None:
        self.tokenizer = tokenizer
        self.ends = frozenset(ends)
        self.stop = [text for text in stop if text]
        self.on_text = on_text
        self.done = self.cut = False
        self.tokens: list[int] = []
        self.known = ""  # the text of the tokens before `self.read`
        self.before = self.read = 0
        self.told = 0  # characters of `self.known` that were told

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        token = int(input_ids[0, -1])
        self.tokens.append(token)
        if token in self.ends:
            self.done = True
        else:
            self._read()
        return torch.full((1,), self.done, dtype=torch.bool, device=input_ids.device)

    def finish(self) -> str:
        """Tell what was held back; the whole text."""
        if not self.cut:
            self.known += self._new()
            self._stopped()
        self._tell(len(self.known))
        return self.known

    def _read(self) -> None:
        # Decoded after the tokens of the last piece, for the first token of a text may lose its space.
        new = self._new()
        if new and not new.endswith("�"):
            self.known += new
            self.before, self.read = self.read, len(self.tokens)
        if self._stopped():
            self.done = True
            self._tell(len(self.known))
            return
        held = max((_overlap(self.known, text) for text in self.stop), default=0)
        self._tell(len(self.known) - held)

    def _new(self) -> str:
        return self._decode(self.before, None)[len(self._decode(self.before, self.read)) :]

    def _decode(self, first: int, last: int | None) -> str:
        text: str = self.tokenizer.decode(self.tokens[first:last], skip_special_tokens=True)
        return text

    def _stopped(self) -> bool:
        """Whether a stop string is there; the text then ends before it."""
        places = [place for text in self.stop if (place := self.known.find(text, self.told)) >= 0]
        if places:
            self.known = self.known[: min(places)]
            self.cut = True
        return self.cut

    def _tell(self, until: int) -> None:
        piece, self.told = self.known[self.told : until], max(self.told, until)
        if self.on_text is not None:
            self.on_text(piece)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
