"""Loading what lies on disk before the network is asked: models, configurations and tokenizers of transformers.

A hub name that has been downloaded before is read from the disk without a word to the network. Weights are
memory-mapped: that is why nothing here keeps a loaded base between trials. GPT-2's 124M parameters took 0.05 s to load
from files in the system's cache, where a copy of a model in memory took 0.27 s (one CPU core). Knows nothing of tasks.
"""

from pathlib import Path
from typing import Any

from models.configuration import Network
from models.errors import DataError, SettingError


def load(auto: Any, name: str, **options: Any) -> Any:
    """What `auto` (a class such as AutoTokenizer) loads under a folder or hub name.

    Raises OSError for a path that is no folder, OSError or ValueError for what transformers cannot load.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return auto.from_pretrained(folder, **options)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError("there is no such folder")
    try:
        return auto.from_pretrained(name, local_files_only=True, **options)
    except (OSError, ValueError):
        return auto.from_pretrained(name, **options)


def brief(error: BaseException) -> str:
    """The first line of what transformers says, as a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."


def configuration(name: str) -> Any:
    """The configuration of the model under a folder or hub name. Raises DataError where there is none."""
    from transformers import AutoConfig

    try:
        return load(AutoConfig, name)
    except (OSError, ValueError) as error:
        raise unloadable(name, error) from error


def unloadable(name: str, error: Exception) -> DataError:
    """What to say of a model that transformers cannot load."""
    return DataError(
        f"model.pretrained: cannot load {name!r}: {brief(error)} Give a folder with a config.json and safetensors, or "
        "a hub name; of a model of your own, promote its study first (hpo promote)."
    )


def fits(settings: Network, *, freeze_layers: int = 0) -> None:
    """Raises DataError for a `model.pretrained` that is not there, and SettingError for settings that do not suit it,
    by its configuration alone: before anything is trained."""
    if settings.pretrained is None:
        return
    name = settings.pretrained
    config = configuration(name)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and settings.context > positions:
        raise SettingError(
            f"model.context: at most the {positions} positions of {name!r}, got {settings.context}. Lower it."
        )
    layers = sum(
        getattr(config, key, None) or 0 for key in ("num_hidden_layers", "decoder_layers", "num_decoder_layers")
    )
    if 0 < layers < freeze_layers:
        raise SettingError(f"freeze_layers: at most the {layers} blocks of {name!r}, got {freeze_layers}. Lower it.")
