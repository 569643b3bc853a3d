"""Causal language models of transformers, made from settings or loaded.

Knows nothing of text or training: it needs the size of the vocabulary and the id of the end-of-text token.
"""

from pathlib import Path
from typing import Any, assert_never

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from models.configuration import Causal
from models.errors import DataError, SettingError

DROPOUTS = (
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "attention_dropout",
    "hidden_dropout",
    "embedding_dropout",
)
"""The names under which transformers' configurations of causal models have dropout."""


def build(settings: Causal, *, vocabulary: int, end: int) -> PreTrainedModel:
    """A causal model in fp32 on the CPU, its weights drawn from torch's generator or loaded.

    vocabulary: tokens. end: id of the end-of-text token, in [0, vocabulary). Raises DataError where a
    pretrained model cannot be loaded, SettingError where it does not fit.
    """
    if settings.pretrained is not None:
        return _pretrained(settings, settings.pretrained, vocabulary)
    match settings.family:
        case "gpt2":
            return _gpt2(settings, vocabulary, end)
        case "llama":
            return _llama(settings, vocabulary, end)
        case _:
            assert_never(settings.family)


def _gpt2(settings: Causal, vocabulary: int, end: int) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        n_inner=round(settings.width * (settings.feed_forward or 4)),
        # The same function as GPT-2's "gelu_new" in one fused kernel instead of eight.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        tie_word_embeddings=settings.tie_embeddings,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    config._attn_implementation = settings.attention
    model = GPT2LMHeadModel(config)
    if not settings.bias:
        # transformers' GPT-2 always has biases, and they start at 0: without training they stay 0, and the
        # saved model is an ordinary GPT-2.
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.requires_grad_(False)
    return model


def _llama(settings: Causal, vocabulary: int, end: int) -> PreTrainedModel:
    inner = settings.width * (settings.feed_forward or 8 / 3)
    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=settings.context,
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads or settings.heads,
        intermediate_size=8 * round(inner / 8) or 8,  # whole multiples of 8 keep tensor cores busy
        attention_dropout=settings.dropout,
        attention_bias=settings.bias,
        mlp_bias=settings.bias,
        tie_word_embeddings=settings.tie_embeddings,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    config._attn_implementation = settings.attention
    return LlamaForCausalLM(config)


def _pretrained(settings: Causal, name: str, vocabulary: int) -> PreTrainedModel:
    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not folder.is_dir():
        raise DataError(f"model.pretrained: no folder {name!r}. Give a Hugging Face folder or a hub name.")
    where: Any = folder if folder.exists() else name
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            where, attn_implementation=settings.attention, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"model.pretrained: cannot load {name!r}: {first}. "
            "Give a folder with a config.json and safetensors, or a hub name."
        ) from error
    _check(model.config, settings, name, vocabulary)
    return _with_dropout(model, settings.dropout)


def _check(config: PretrainedConfig, settings: Causal, name: str, vocabulary: int) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and settings.context > positions:
        raise SettingError(
            f"model.context: at most the {positions} positions of {name!r}, got {settings.context}. Lower it."
        )
    if vocabulary > config.vocab_size:
        raise SettingError(
            f"tokenizer.path: at most the {config.vocab_size} tokens that {name!r} knows, got {vocabulary}. "
            "Use the model's own tokenizer."
        )


def _with_dropout(model: Any, dropout: float) -> PreTrainedModel:
    """Set every dropout of a loaded model; its modules have taken theirs from the configuration already."""
    for name in DROPOUTS:
        if hasattr(model.config, name):
            setattr(model.config, name, dropout)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout
    found: PreTrainedModel = model
    return found
