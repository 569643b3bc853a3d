"""Folders of tiny models with random weights, made by transformers from a config, and how small they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
)

END, PAD = "<|endoftext|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 64


def tokenizer(folder: Path, *, template: str | None = None, ends: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, and the special tokens. ends: whether a text is given an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend: Any = tokenizers.Tokenizer(BPE({character: place for place, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END, PAD, *ROLES])
    if ends:
        backend.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 256)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, bos_token=END, pad_token=PAD, model_max_length=CONTEXT
    )
    made.chat_template = template
    made.save_pretrained(folder)
    return made


def save(folder: Path, model: Any, task: dict[str, Any] | None) -> Path:
    """The folder, with a task.json unless `task` is None."""
    model.generation_config = GenerationConfig(
        max_new_tokens=16, do_sample=True, bos_token_id=256, eos_token_id=256, pad_token_id=257
    )
    if model.config.is_encoder_decoder:
        model.generation_config.decoder_start_token_id = 257
    model.save_pretrained(folder)
    if task is not None:
        (folder / "task.json").write_text(json.dumps({"context": CONTEXT, **task}))
    return folder


def language_model(folder: Path, *, task: dict[str, Any] | None = None, context: int = CONTEXT) -> Path:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=261, n_positions=context, n_embd=16, n_layer=1, n_head=2, bos_token_id=256, eos_token_id=256
    )
    tokenizer(folder)
    return save(folder, GPT2LMHeadModel(config), {"task": "language modelling", "context": context, **(task or {})})


def dialogue_model(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=261, max_position_embeddings=CONTEXT, bos_token_id=256, eos_token_id=256, **shape)
    tokenizer(folder, template=CHAT_TEMPLATE)
    return save(folder, LlamaForCausalLM(config), {"task": "chat"})


def classifier(folder: Path, *, task: dict[str, Any] | None = None, labels: tuple[str, ...] = ("bad", "good")) -> Path:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = dict(enumerate(labels))
    config = BertConfig(
        vocab_size=261,
        max_position_embeddings=CONTEXT,
        pad_token_id=257,
        id2label=names,
        num_labels=len(names),
        **shape,
    )
    tokenizer(folder, ends=True)
    given = {"task": "classification", "labels": list(labels), "multi_label": False, "threshold": 0.5}
    return save(folder, BertForSequenceClassification(config), {**given, **(task or {})})


def translator(folder: Path, *, task: dict[str, Any] | None = None) -> Path:
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=261,
        max_position_embeddings=CONTEXT,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=257,
        eos_token_id=256,
        decoder_start_token_id=257,
    )
    tokenizer(folder, ends=True)
    given = {"task": "translation", "family": "marian", "generation": {"max_new_tokens": 8}}
    return save(folder, MarianMTModel(config), {**given, **(task or {})})
