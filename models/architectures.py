"""The models of transformers that are trained, made from settings or loaded.

Knows nothing of text or training: it needs the size of the vocabulary and the ids of special tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import torch
import transformers
from transformers import PreTrainedModel

from models import pretrained
from models.configuration import Causal, Classifier, Network, SequenceToSequence
from models.errors import DataError

DROPOUTS = {
    "attention": ("attn_pdrop", "attention_dropout", "attention_probs_dropout_prob"),
    "hidden": (
        "resid_pdrop",
        "hidden_dropout",
        "hidden_dropout_prob",
        "mlp_dropout",
        "dropout",
        "dropout_rate",
        "classifier_dropout",
    ),
    "embedding": ("embd_pdrop", "embedding_dropout"),
}
"""The names under which transformers' configurations have each kind of dropout."""
HEADS = ("score", "classifier")
"""Layers that a classification begins with at random, unless the pretrained model has some for as many labels."""

transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar a trial in every log


@dataclass(frozen=True)
class Vocabulary:
    """What a model must know of its tokenizer. size: tokens. end, pad: ids of the end-of-text and the padding
    token, in [0, size)."""

    size: int
    end: int
    pad: int


def causal(settings: Causal | SequenceToSequence, vocabulary: Vocabulary) -> PreTrainedModel:
    """A decoder-only language model in fp32 on the CPU, its weights drawn from torch's generator or loaded.

    Raises DataError where a pretrained model cannot be loaded, SettingError where it does not fit.
    """
    if settings.pretrained is not None:
        return _pretrained(transformers.AutoModelForCausalLM, settings, vocabulary)
    kv_heads = settings.kv_heads if isinstance(settings, Causal) else None
    if settings.family == "gpt2":
        model: Any = transformers.GPT2LMHeadModel(_gpt2(settings, vocabulary, settings.layers, settings.tie_embeddings))
        if isinstance(settings, Causal) and not settings.bias:
            _without_biases(model)
        return model  # type: ignore[no-any-return]
    bias = isinstance(settings, Causal) and settings.bias
    config = _llama(settings, vocabulary, settings.layers, tie=settings.tie_embeddings, bias=bias)
    config.num_key_value_heads = kv_heads or settings.heads
    return transformers.LlamaForCausalLM(config)


def classifier(
    settings: Classifier, vocabulary: Vocabulary, *, labels: list[str], multi_label: bool
) -> PreTrainedModel:
    """A model with a classification layer, as `causal` makes one. labels: their names in the order of its outputs."""
    heads: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: number for number, name in enumerate(labels)},
        "problem_type": "multi_label_classification" if multi_label else "single_label_classification",
    }
    if settings.pretrained is not None:
        return _pretrained(transformers.AutoModelForSequenceClassification, settings, vocabulary, **heads)
    config: Any
    match settings.family:
        case "bert":
            config = _bert(settings, vocabulary)
            made: Any = transformers.BertForSequenceClassification
        case "modernbert":
            config = _modernbert(settings, vocabulary)
            made = transformers.ModernBertForSequenceClassification
        case "gpt2":
            config = _gpt2(settings, vocabulary, settings.layers, tie=True)
            made = transformers.GPT2ForSequenceClassification
        case "llama":
            config = _llama(settings, vocabulary, settings.layers, tie=True, bias=False)
            made = transformers.LlamaForSequenceClassification
        case _:
            assert_never(settings.family)
    for name, value in heads.items():
        setattr(config, name, value)
    return made(config)  # type: ignore[no-any-return]


def encoder_decoder(settings: SequenceToSequence, vocabulary: Vocabulary) -> PreTrainedModel:
    """A model that reads one sequence and writes another, as `causal` makes one."""
    if settings.pretrained is not None:
        return _pretrained(transformers.AutoModelForSeq2SeqLM, settings, vocabulary)
    if settings.family == "t5":
        return transformers.T5ForConditionalGeneration(_t5(settings, vocabulary))
    return transformers.MarianMTModel(_marian(settings, vocabulary))


def is_encoder_decoder(settings: SequenceToSequence) -> bool:
    """Whether the model has an encoder; of a pretrained one its configuration says so."""
    if settings.pretrained is None:
        return settings.family in ("marian", "t5")
    return bool(pretrained.configuration(settings.pretrained).is_encoder_decoder)


def family(settings: SequenceToSequence) -> str:
    """`model.family`, of a pretrained model its own."""
    if settings.pretrained is None:
        return settings.family
    return str(pretrained.configuration(settings.pretrained).model_type)


def decoder_start(settings: SequenceToSequence, pad: int) -> int | None:
    """The token that the decoder of an encoder-decoder begins with: the padding, of a pretrained model its own (BART's
    is the end of a text); None for a decoder alone."""
    if not is_encoder_decoder(settings):
        return None
    start = None
    if settings.pretrained is not None:
        start = getattr(pretrained.configuration(settings.pretrained), "decoder_start_token_id", None)
    return pad if start is None else int(start)


def _inner(settings: Network, multiple: float) -> int:
    return round(settings.width * (settings.feed_forward or multiple))


def _ids(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "bos_token_id": vocabulary.end,
        "eos_token_id": vocabulary.end,
        "pad_token_id": vocabulary.pad,
        "vocab_size": vocabulary.size,
    }


def _gpt2(settings: Network, vocabulary: Vocabulary, layers: int, tie: bool) -> Any:
    config = transformers.GPT2Config(
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=layers,
        n_head=settings.heads,
        n_inner=_inner(settings, 4),
        # The same function as GPT-2's "gelu_new" in one fused kernel instead of eight.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=settings.drop("hidden"),
        embd_pdrop=settings.drop("embedding"),
        attn_pdrop=settings.drop("attention"),
        tie_word_embeddings=tie,
        **_ids(vocabulary),
    )
    config._attn_implementation = settings.attention
    return config


def _without_biases(model: Any) -> None:
    """transformers' GPT-2 always has biases, and they start at 0: without training they stay 0, and the saved model
    is an ordinary GPT-2."""
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.requires_grad_(False)


def _llama(settings: Network, vocabulary: Vocabulary, layers: int, *, tie: bool, bias: bool) -> Any:
    inner = settings.width * (settings.feed_forward or 8 / 3)
    config = transformers.LlamaConfig(
        max_position_embeddings=settings.context,
        hidden_size=settings.width,
        num_hidden_layers=layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        intermediate_size=8 * round(inner / 8) or 8,  # whole multiples of 8 keep tensor cores busy
        attention_dropout=settings.drop("attention"),
        attention_bias=bias,
        mlp_bias=bias,
        tie_word_embeddings=tie,
        **_ids(vocabulary),
    )
    config._attn_implementation = settings.attention
    return config


def _bert(settings: Classifier, vocabulary: Vocabulary) -> Any:
    config = transformers.BertConfig(
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=_inner(settings, 4),
        hidden_dropout_prob=settings.drop("hidden"),
        attention_probs_dropout_prob=settings.drop("attention"),
        classifier_dropout=settings.drop("hidden"),
        max_position_embeddings=settings.context,
        type_vocab_size=1,
        **_ids(vocabulary),
    )
    config._attn_implementation = settings.attention
    return config


def _modernbert(settings: Classifier, vocabulary: Vocabulary) -> Any:
    config = transformers.ModernBertConfig(
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=_inner(settings, 2),
        mlp_dropout=settings.drop("hidden"),
        attention_dropout=settings.drop("attention"),
        embedding_dropout=settings.drop("embedding"),
        classifier_dropout=settings.drop("hidden"),
        classifier_pooling="mean",
        max_position_embeddings=settings.context,
        local_attention=2 * settings.context,  # every layer sees everything
        cls_token_id=vocabulary.end,
        sep_token_id=vocabulary.end,
        **_ids(vocabulary),
    )
    config._attn_implementation = settings.attention
    return config


def _marian(settings: SequenceToSequence, vocabulary: Vocabulary) -> Any:
    decoder_layers = settings.decoder_layers or settings.layers
    config = transformers.MarianConfig(
        d_model=settings.width,
        encoder_layers=settings.layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=settings.heads,
        decoder_attention_heads=settings.heads,
        encoder_ffn_dim=_inner(settings, 4),
        decoder_ffn_dim=_inner(settings, 4),
        dropout=settings.drop("hidden"),
        attention_dropout=settings.drop("attention"),
        activation_dropout=0.0,
        activation_function="relu",
        max_position_embeddings=settings.context,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=settings.tie_embeddings,
        decoder_start_token_id=vocabulary.pad,
        forced_eos_token_id=None,
        decoder_vocab_size=vocabulary.size,
        **_ids(vocabulary),
    )
    config._attn_implementation = settings.attention
    return config


def _t5(settings: SequenceToSequence, vocabulary: Vocabulary) -> Any:
    made: Any = transformers.T5Config  # its settings for generation are not in its signature
    config = made(
        d_model=settings.width,
        d_kv=settings.width // settings.heads,
        d_ff=_inner(settings, 4),
        num_layers=settings.layers,
        num_decoder_layers=settings.decoder_layers or settings.layers,
        num_heads=settings.heads,
        dropout_rate=settings.drop("hidden"),
        classifier_dropout=settings.drop("hidden"),
        feed_forward_proj="relu",
        tie_word_embeddings=settings.tie_embeddings,
        decoder_start_token_id=vocabulary.pad,
        **_ids(vocabulary),
    )
    config.max_position_embeddings = settings.context  # of no effect on relative positions; what it was trained for
    return config


def _pretrained(auto: Any, settings: Network, vocabulary: Vocabulary, **more: Any) -> PreTrainedModel:
    name = str(settings.pretrained)
    pretrained.fits(settings)
    config = pretrained.configuration(name)
    for kind, names in DROPOUTS.items():
        for attribute in names:
            if isinstance(getattr(config, attribute, None), int | float):  # a config.json may have 0 for 0.0
                setattr(config, attribute, settings.drop(kind))  # type: ignore[arg-type]
    for attribute, value in more.items():
        setattr(config, attribute, value)
    try:
        model, info = pretrained.load(
            auto,
            name,
            config=config,
            attn_implementation=settings.attention,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=bool(more),  # a classifier's head may have had other labels
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise pretrained.unloadable(name, error) from error
    model.new_modules = _new(info, name, may_be=bool(more))
    known = model.get_input_embeddings().num_embeddings
    if vocabulary.size > known:  # special tokens that the model has not seen, such as a dialogue's roles
        # Their rows are drawn at random; the same ones each time, for a resumed or saved model is made anew.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.resize_token_embeddings(vocabulary.size, mean_resizing=True)
        model.known_tokens = known
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = vocabulary.pad
    found: PreTrainedModel = model
    return found


def _new(info: Mapping[str, Any], name: str, *, may_be: bool) -> list[str]:
    """The modules whose weights the folder does not hold, so that they begin at random: of a classifier its head.

    Raises DataError for any others.
    """
    mismatched = [item if isinstance(item, str) else item[0] for item in info["mismatched_keys"]]
    absent = sorted({*info["missing_keys"], *mismatched})
    heads = tuple(f"{head}." for head in HEADS)
    if wrong := [weight for weight in (mismatched if may_be else absent) if not (may_be and weight.startswith(heads))]:
        raise DataError(
            f"model.pretrained: {name!r} must hold every weight of the model, got none that fits for {wrong[0]}"
            f"{f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''}. Name a model for this task."
        )
    return sorted({weight.rpartition(".")[0] for weight in absent})
