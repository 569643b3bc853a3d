"""The laws: the published formulas, the size that they read, and where they are refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from models import architectures, laws
from models.architectures import Vocabulary
from models.configuration import Causal, Tokenizer
from models.errors import SettingError
from models.language_modelling import LAWS, Config

SHAPES = [
    Causal(width=32, layers=3),
    Causal(width=32, bias=True),
    Causal(width=48, heads=2, feed_forward=2.5, tie_embeddings=False),
    Causal(family="llama", width=64, layers=2),
    Causal(family="llama", width=64, heads=8, kv_heads=2, bias=True, feed_forward=3.1, tie_embeddings=False),
]
STEP_LAW, TIMESCALE = LAWS["learning_rate"]["step law"], LAWS["weight_decay"]["adamw timescale"]


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_the_size_is_that_of_the_built_model_without_vocabulary_and_positions(shape: Causal) -> None:
    model = architectures.causal(shape, Vocabulary(77, 0, 0))
    apart = ("wte", "wpe", "embed_tokens", "lm_head")
    counted = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(part in name for part in apart)
    )
    assert laws.parameters(shape) == counted


def test_step_law_says_what_its_authors_measured() -> None:
    """Of 214,663,680 parameters and 4B tokens: the best rates of their grid are 0.0028 and 0.0020, half an octave apart."""
    assert 0.0014 < laws.step_law(214_663_680, 4_000_000_000) < 0.0028


def test_the_timescale_comes_back_from_the_weight_decay() -> None:
    decay = laws.adamw_timescale(1_000_000, 20_000_000, 4096, 1e-3)
    share = 4096 / (1e-3 * decay * 20_000_000)
    assert share == pytest.approx(1.084 * 20**-0.527)


def test_the_laws_read_size_length_batch_and_rate() -> None:
    config = Config(tokens=1_000_000, learning_rate=1e-3, batch_size=8, model=Causal(width=64))
    wider = replace(config, model=Causal(width=128))
    longer = replace(config, tokens=4_000_000)
    assert STEP_LAW(wider) < STEP_LAW(config)
    assert STEP_LAW(longer) / STEP_LAW(config) == pytest.approx(4**0.307)
    assert TIMESCALE(replace(config, learning_rate=2e-3)) / TIMESCALE(config) == pytest.approx(1 / 2)
    assert TIMESCALE(replace(config, batch_size=24)) / TIMESCALE(config) == pytest.approx(3)


def test_epochs_count_as_the_tokens_that_they_are() -> None:
    one, two = (Config(epochs=epochs, model=Causal(width=64)) for epochs in (1.0, 2.0))
    assert STEP_LAW(two) / STEP_LAW(one) == pytest.approx(2**0.307, rel=1e-6)
    assert math.isfinite(TIMESCALE(one))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (
            Config(model=Causal(pretrained="a"), tokenizer=Tokenizer(kind="pretrained")),
            "fine-tuning (model.pretrained)",
        ),
        (Config(tuning="lora"), "fine-tuning (tuning: lora)"),
        (Config(freeze_layers=1), "fine-tuning (freeze_layers)"),
        (Config(optimizer="sgd"), "optimizer: sgd"),
    ],
)
def test_where_no_law_was_fitted_none_is_given(config: Config, what: str) -> None:
    for law in (STEP_LAW, TIMESCALE):
        with pytest.raises(SettingError) as refused:
            law(config)
        assert str(refused.value) == f"no law was fitted for {what}; leave `law` out."
