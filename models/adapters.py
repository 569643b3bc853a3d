"""Low-rank additions to a model, by PEFT: put on before training, merged into the weights afterwards.

Knows nothing of tasks or of how a model is trained.
"""

import warnings
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from models import optimizers
from models.architectures import HEADS
from models.configuration import Lora, Training

ATTENTION = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "out_proj",
    "c_attn",
    "q_attn",
    "query",
    "key",
    "value",
    "Wqkv",
    "Wo",
)
T5_ATTENTION = ("q", "k", "v", "o")


def tuned(model: PreTrainedModel, settings: Training) -> nn.Module:
    """The model as `settings` wants it trained: whole, with its lowest blocks frozen, or by low-rank additions.

    Raises SettingError where it has fewer blocks than are to be frozen.
    """
    if settings.tuning == "lora":
        return attach(model, settings.lora)
    optimizers.freeze(model, settings.freeze_layers)
    return model


def attach(model: PreTrainedModel, settings: Lora) -> nn.Module:
    """The model with its weights frozen and low-rank additions to its matrices, which start as nothing.

    The embeddings of tokens that a pretrained model did not know before are trained as well, and so, whole, is what
    begins at random: a classification's head, and the layers under it that the pretrained model lacks (BERT's pooler
    where it was trained on masks alone). A checkpoint holds what is trained, and the rest is loaded again.
    """
    import peft

    named: list[tuple[str, Any]] = list(model.named_modules())
    leaves = {name.rsplit(".", 1)[-1] for name, module in named if isinstance(module, nn.Linear | Conv1D)}
    attention = sorted(leaves & {*ATTENTION, *(T5_ATTENTION if model.config.model_type == "t5" else ())})
    embedding: Any = model.get_input_embeddings()
    new = list(range(getattr(model, "known_tokens", embedding.num_embeddings), embedding.num_embeddings))
    embedded = next(name for name, module in named if module is embedding)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a float works and is merged as one
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.targets == "all" else attention,
        exclude_modules=None if settings.targets == "all" else ".*mlp.*",  # modernbert has a `Wo` in both
        modules_to_save=_whole(model) or None,
        trainable_token_indices={embedded.rsplit(".", 1)[-1]: new} if new else None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for _, module in named),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of GPT-2's transposed matrices, which it handles
        found: nn.Module = peft.get_peft_model(model, config)
    return found


def _whole(model: PreTrainedModel) -> list[str]:
    """The layers that are trained whole. PEFT takes them by the end of their names, so that `classifier` means
    DistilBERT's `pre_classifier` too: it is named as well."""
    ends = {*(head for head in HEADS if hasattr(model, head)), *getattr(model, "new_modules", ())}
    meant = [name for name, _ in model.named_modules() if ends and name.endswith(tuple(ends))]
    return sorted({*ends, *meant})


def size(model: nn.Module) -> int:
    """Weights of the model as it is saved: shared ones once, low-rank additions merged into what they add to."""
    copies = ("lora_", "original_module", "trainable_tokens")
    return sum(
        weights.numel() for name, weights in model.named_parameters() if not any(part in name for part in copies)
    )


def plain(model: Any) -> PreTrainedModel:
    """transformers' own model inside what torch.compile and PEFT have wrapped, its additions at work."""
    inner = getattr(model, "_orig_mod", model)
    found: PreTrainedModel = inner.get_base_model() if getattr(inner, "peft_config", None) is not None else inner
    return found


def merged(model: nn.Module) -> PreTrainedModel:
    """The model with its additions, where it has any, merged into its weights: an ordinary model again."""
    if getattr(model, "peft_config", None) is None:
        return model  # type: ignore[return-value]
    found: PreTrainedModel = model.merge_and_unload()  # type: ignore[operator]
    return found
