"""A cache of its own for every test, and small corpora and configurations on which training takes moments."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.configuration import Causal, TextData, Tokenizer
from models.language_modelling import Config

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "brew",
    "strong",
    "black",
    "tea",
    "in",
    "tin",
    "pots",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`$HPO_CACHE` in the test's own folder, no way to the network, one thread (also for processes that tests start:
    numpy and torch start theirs when imported)."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Four hundred paragraphs of random words, all different."""
    chance = random.Random(0)
    paragraphs = [" ".join(chance.choices(WORDS, k=chance.randint(8, 20))) + f" {n}." for n in range(400)]
    path = tmp_path / "words.txt"
    path.write_text("\n\n".join(paragraphs) + "\n")
    return path


@pytest.fixture
def config(text_file: Path) -> Callable[..., Config]:
    """A configuration of a tiny model on `text_file`; keywords change settings, `model=` and `data=` by dict."""

    def make(*, model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any) -> Config:
        shape = {"layers": 1, "width": 16, "heads": 2, "context": 16, **(model or {})}
        settings = {"tokens": 2048, "batch_size": 8, "learning_rate": 1e-2, "checkpoint_seconds": 1e9, **changes}
        settings.setdefault("tokenizer", Tokenizer(kind="bytes"))
        return Config(data=TextData(**{"source": str(text_file), **(data or {})}), model=Causal(**shape), **settings)

    return make
