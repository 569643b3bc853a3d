"""Laws that say where the best value of a setting lies, from the size of a model and the length of its training.

Pure arithmetic on numbers and settings: no torch, no data. Each formula has its paper and what it was fitted on;
outside of that it is a place to begin a search at, and no more. Knows nothing of searches.
"""

from models.configuration import Causal, Training
from models.errors import SettingError


def step_law(parameters: int, tokens: int) -> float:
    """The best peak learning rate of AdamW (Li et al. 2025, Predictable Scale: Part I, arXiv 2503.04715).

    eta = 1.79 N^-0.713 D^0.307, fitted with cosine schedules that end at a rate of 1e-5. The dense grids that were
    published with it have N from 215M to 537M and D from 4B to 80B; small models are far outside of that.

    parameters: N, without the vocabulary's. tokens: D, of the whole run, at least 1.
    """
    return float(1.79 * parameters**-0.713 * tokens**0.307)


def adamw_timescale(parameters: int, tokens: int, batch_tokens: int, learning_rate: float) -> float:
    """The weight decay that lets AdamW average its updates over the best share of a run.

    Weights that decay by eta lambda a step are an average of about 1 / (eta lambda) updates (Wang & Aitchison 2024,
    arXiv 2405.13698, section 2); as a share of a run of D / B steps that is tau = B / (eta lambda D). Its best value is
    1.084 (D / N)^-0.527 (Bergsma et al. 2025, Power Lines, arXiv 2505.13738; the factor from a third party), so
    lambda = B / (eta D tau). Fitted with
    muP, a linear fall to zero and data that is seen once, N from 111M to 3.3B. torch's AdamW multiplies by
    1 - eta lambda, eta being the rate of the step: here as there eta is the peak.

    parameters: N, without the vocabulary's. tokens: D. batch_tokens: B, of an optimizer step. learning_rate: eta.
    """
    share = 1.084 * (tokens / parameters) ** -0.527
    return float(batch_tokens / (learning_rate * tokens * share))


def need_fit(settings: Training, model: Causal) -> None:
    """Raises SettingError where no law was fitted: everything but training a whole new model with AdamW."""
    for what, holds in (
        ("fine-tuning (model.pretrained)", model.pretrained is not None),
        ("fine-tuning (tuning: lora)", settings.tuning == "lora"),
        ("fine-tuning (freeze_layers)", settings.freeze_layers > 0),
        (f"optimizer: {settings.optimizer}", settings.optimizer != "adamw"),
    ):
        if holds:
            raise SettingError(f"no law was fitted for {what}; leave `law` out.")


def parameters(model: Causal) -> int:
    """Trained parameters of a new model, without those of the vocabulary and of learned positions.

    What `architectures.causal` builds, counted without building it: blocks and the last norm.
    """
    width = model.width
    if model.family == "llama":
        inner = 8 * round(width * (model.feed_forward or 8 / 3) / 8) or 8
        keys = width // model.heads * (model.kv_heads or model.heads)
        matrices = 2 * width * width + 2 * width * keys + 3 * width * inner
        biases = 2 * width + 2 * keys + 2 * inner + width if model.bias else 0
        norm = width
    else:
        inner = round(width * (model.feed_forward or 4))
        matrices = 4 * width * width + 2 * width * inner
        biases = 5 * width + inner if model.bias else 0
        norm = 2 * width if model.bias else width
    return model.layers * (matrices + biases + 2 * norm) + norm
