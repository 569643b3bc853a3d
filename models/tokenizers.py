"""Tokenisers: built from a training split or loaded, and the encoding of whole corpora with them.

All kinds become a `tokenizer.json` that `transformers.AutoTokenizer` loads. Characters and bytes are
encoded by table, which gives the same tokens as that file (tested) and takes 7 and 0.3 ms for 1.1 million
characters where the file's takes 0.7 and 0.24 s (one core). Knows nothing of files of text, splits or models.

Text is text: a document that happens to contain `<|endoftext|>` is encoded letter by letter, never as the
token. What else a task needs of its tokenizer (padding, roles, where special tokens go) it says by `Shape`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, WordLevel

from models import pretrained
from models.configuration import Tokenizer
from models.errors import DataError

END = "<|endoftext|>"
UNKNOWN = "<unk>"
PAD = "<|pad|>"

Tokens = npt.NDArray[np.uint32]
Texts = Callable[[], Iterator[str]]
"""Starts a fresh pass over the texts of one split."""


@dataclass(frozen=True)
class Shape:
    """What a task needs of its tokenizer beside the end-of-text token.

    specials: further special tokens. template: where the end-of-text token goes in what a model reads, as
    "E $A", "$A E" or "$A"; a pretrained tokenizer that puts special tokens of its own keeps them. context:
    longest sequence in tokens, longer ones are cut; None: no limit. chat_template: Jinja, for a tokenizer that
    has none.
    """

    specials: tuple[str, ...] = ()
    template: str = "$A"
    context: int | None = None
    chat_template: str | None = None


PLAIN = Shape()


@dataclass(frozen=True)
class Encoder:
    """A tokenizer ready to encode a corpus.

    vocabulary: number of tokens. end: id of the end-of-text token. unknown: id for what the vocabulary lacks,
    None where nothing can be unknown. table: id by code point (characters) or None.
    """

    backend: Any  # tokenizers.Tokenizer, a compiled class without types
    vocabulary: int
    end: int
    unknown: int | None = None
    table: Tokens | None = None
    by_byte: bool = False
    pretrained: Any = None  # the transformers tokenizer it came from
    shape: Shape = PLAIN

    @property
    def pad(self) -> int:
        """Id of the padding token; of a tokenizer without one, the end-of-text token's."""
        if self.pretrained is not None and self.pretrained.pad_token_id is not None:
            return int(self.pretrained.pad_token_id)
        found = self.backend.token_to_id(PAD)
        return self.end if found is None else int(found)

    def inputs(self, texts: Sequence[str]) -> list[Tokens]:
        """What a model reads of each text: its tokens with the special tokens of the shape, cut to its
        context."""
        return [np.asarray(item.ids, dtype=np.uint32) for item in self.backend.encode_batch_fast(list(texts))]

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, each of shape (tokens,), without any special token."""
        if self.by_byte:
            return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32) for text in texts]
        if self.table is not None:
            return [self._look_up(text, self.table) for text in texts]
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(item.ids, dtype=np.uint32) for item in encoded]

    def lengths(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """How many tokens `inputs` would give without the limit of the context, shape (texts,)."""
        context = self.shape.context
        if context is not None:
            self.backend.no_truncation()
        try:
            return np.asarray([len(ids) for ids in self.inputs(texts)], dtype=np.int64)
        finally:
            if context is not None:
                self.backend.enable_truncation(context)

    def _look_up(self, text: str, table: Tokens) -> Tokens:
        assert self.unknown is not None
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        known = codes < len(table)
        return np.where(known, table[np.where(known, codes, 0)], np.uint32(self.unknown))

    def save(self, folder: Path) -> None:
        """Write the files that `AutoTokenizer.from_pretrained(folder)` reads."""
        if self.pretrained is not None:
            if self.shape.context is not None:
                self.pretrained.model_max_length = self.shape.context
            self.pretrained.save_pretrained(folder)
            return
        folder.mkdir(parents=True, exist_ok=True)
        plain = tokenizers.Tokenizer.from_str(self.backend.to_str())
        plain.no_truncation()
        plain.save(str(folder / "tokenizer.json"))
        names = {"eos_token": END, "bos_token": END, "pad_token": END}
        if self.unknown is not None:
            names["unk_token"] = UNKNOWN
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **names,
        }
        if PAD in self.shape.specials:
            settings["pad_token"] = PAD
        if self.shape.context is not None:
            settings["model_max_length"] = self.shape.context
        if self.shape.chat_template is not None:
            settings["chat_template"] = self.shape.chat_template
            settings["additional_special_tokens"] = [name for name in self.shape.specials if name != PAD]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def build(settings: Tokenizer, texts: Texts, *, pretrained: str | None, shape: Shape = PLAIN) -> Encoder:
    """The tokenizer that `settings` asks for.

    texts: those of the train split, the only ones a vocabulary may be made from. pretrained: folder or hub
    name, for that kind. Raises DataError for a pretrained tokenizer that cannot be loaded or used.
    """
    encoder = _made(settings, texts, pretrained, shape)
    if shape.context is not None:
        encoder.backend.enable_truncation(shape.context)
    if shape.template != "$A" and not _has_own(encoder, shape):
        encoder.backend.post_processor = _placing(encoder, shape)
        if encoder.pretrained is not None:  # so that the saved tokenizer does the same
            encoder.pretrained.backend_tokenizer.post_processor = encoder.backend.post_processor
    return replace(encoder, shape=shape)


def _has_own(encoder: Encoder, shape: Shape) -> bool:
    """Whether a tokenizer puts special tokens itself: the end-of-text token after the text (mBART's language may follow
    it) where the shape wants one there, else any.

    GPT-2's has a post-processor that puts none, Llama's puts one at the beginning alone.
    """
    if shape.template.endswith("E"):
        return encoder.end in encoder.backend.encode("a").ids[1:]
    return bool(encoder.backend.encode("").ids)


def _placing(encoder: Encoder, shape: Shape) -> Any:
    """What puts the end-of-text token where the shape wants it, beside the special tokens a tokenizer puts itself.

    One template for all: of two in a row, the second takes what the first put for a text of its own.
    """
    bare = encoder.backend.encode("a", add_special_tokens=False).ids
    whole = encoder.backend.encode("a").ids
    first = next((place for place in range(len(whole)) if whole[place : place + len(bare)] == bare), 0)
    named = {f"own{place}": token for place, token in enumerate(whole) if not first <= place < first + len(bare)}
    around = list(named)
    single = " ".join([*around[:first], shape.template.replace("E", END), *around[first:]])
    return processors.TemplateProcessing(single=single, special_tokens=[*named.items(), (END, encoder.end)])


def load(folder: Path, shape: Shape = PLAIN) -> Encoder:
    """An encoder that `Encoder.save` wrote, with the same shape."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    backend: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_padding()
    backend.no_truncation()
    if shape.context is not None:
        backend.enable_truncation(shape.context)
    named = {
        key: value["content"] if isinstance(value, dict) else value
        for key, value in config.items()
        if key in ("eos_token", "unk_token")
    }
    unknown = named.get("unk_token")
    encoder = Encoder(
        backend,
        backend.get_vocab_size(),
        backend.token_to_id(named["eos_token"]),
        unknown=None if unknown is None else backend.token_to_id(unknown),
        shape=shape,
    )
    return _as_text(encoder)


def _made(settings: Tokenizer, texts: Texts, pretrained: str | None, shape: Shape) -> Encoder:
    specials = shape.specials
    match settings.kind:
        case "characters":
            return _characters(texts, specials)
        case "bytes":
            return _bytes(specials)
        case "words":
            return _words(texts, settings.vocabulary, specials)
        case "bpe":
            return _bpe(texts, settings.vocabulary, specials)
        case "pretrained":
            assert pretrained is not None  # a rule of the configuration
            return _pretrained(pretrained, shape)
        case _:
            assert_never(settings.kind)


def _characters(texts: Texts, specials: Sequence[str]) -> Encoder:
    seen: set[str] = set()
    for text in texts():
        seen.update(text)
    vocabulary = {character: index for index, character in enumerate(sorted(seen))}
    unknown, end = len(seen), len(seen) + 1
    table = np.full(max(map(ord, seen), default=0) + 1, unknown, dtype=np.uint32)
    for character, index in vocabulary.items():
        table[ord(character)] = index
    backend: Any = tokenizers.Tokenizer(WordLevel({**vocabulary, UNKNOWN: unknown, END: end}, unk_token=UNKNOWN))
    # One token a character, line ends too: `.` would leave those out, and no pre-tokenizer would look for
    # words.
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([UNKNOWN, END, *specials])
    return _as_text(Encoder(backend, len(seen) + 2 + len(specials), end, unknown=unknown, table=table))


def _bytes(specials: Sequence[str]) -> Encoder:
    # The byte-level pre-tokenizer writes each byte as one printable character; its table is in the library's
    # order, so a vocabulary with id = byte value needs the character that stands for each byte.
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    backend: Any = tokenizers.Tokenizer(BPE({**vocabulary, END: 256}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END, *specials])
    return _as_text(Encoder(backend, 257 + len(specials), 256, by_byte=True))


def _words(texts: Texts, vocabulary: int, specials: Sequence[str]) -> Encoder:
    backend: Any = tokenizers.Tokenizer(WordLevel(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # words, and runs of other signs
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary, special_tokens=[UNKNOWN, END, *specials], show_progress=False
    )
    backend.train_from_iterator(texts(), trainer=trainer)
    ids = [backend.token_to_id(name) for name in (END, UNKNOWN)]
    return _as_text(Encoder(backend, backend.get_vocab_size(), ids[0], unknown=ids[1]))


def _byte_characters() -> list[str]:
    """The printable character for each byte value (Radford et al. 2019, `bytes_to_unicode` in
    openai/gpt-2)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _bpe(texts: Texts, vocabulary: int, specials: Sequence[str]) -> Encoder:
    backend: Any = tokenizers.Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts(), trainer=trainer)
    return _as_text(Encoder(backend, backend.get_vocab_size(), backend.token_to_id(END)))


def _pretrained(name: str, shape: Shape) -> Encoder:
    from transformers import AutoTokenizer

    try:
        loaded: Any = pretrained.load(AutoTokenizer, name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"tokenizer.path: cannot load {name!r}: {pretrained.brief(error)} "
            "Give a folder with a tokenizer.json, or the name of one on the hub."
        ) from error
    if not loaded.is_fast or loaded.eos_token_id is None:
        raise DataError(
            f"tokenizer.path: {name!r} must have a tokenizer.json and an end-of-text token, got "
            f"{type(loaded).__name__}, end-of-text {loaded.eos_token!r}. Use another tokenizer."
        )
    # A tokenizer with a chat template has the tokens that it needs.
    specials = () if shape.chat_template is not None and loaded.chat_template is not None else shape.specials
    if loaded.chat_template is None:
        loaded.chat_template = shape.chat_template
    missing = [token for token in specials if loaded.convert_tokens_to_ids(token) in (None, loaded.unk_token_id)]
    if PAD in missing and loaded.pad_token_id is not None:
        missing.remove(PAD)
    if missing:
        loaded.add_special_tokens({"additional_special_tokens": missing})
        if PAD in missing:
            loaded.pad_token = PAD
    # A copy, so that reading text as text does not go into what is saved.
    backend: Any = tokenizers.Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return _as_text(Encoder(backend, len(loaded), loaded.eos_token_id, unknown=loaded.unk_token_id, pretrained=loaded))


def _as_text(encoder: Encoder) -> Encoder:
    encoder.backend.encode_special_tokens = True
    return encoder
