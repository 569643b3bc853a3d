"""Every setting of a training, with its unit, range and default: the parts that the doors' `Config` types are
made of.

Light to import (no torch, no numpy): `hpo check` reads these types to check a sweep before anything starts.
Ranges stand in the annotations, where pydantic finds them; rules between fields stand in `__post_init__`.
Says what a setting means and never acts on one.
"""

from models.configuration.data import (
    Augment,
    Data,
    DialogueData,
    LabelledData,
    PairData,
    PreferenceData,
    Preprocess,
    TextData,
    Tokenizer,
)
from models.configuration.model import Causal, Classifier, Network, SequenceToSequence
from models.configuration.training import EarlyStopping, Generation, Lora, TextTraining, Training

__all__ = [
    "Augment",
    "Causal",
    "Classifier",
    "Data",
    "DialogueData",
    "EarlyStopping",
    "Generation",
    "LabelledData",
    "Lora",
    "Network",
    "PairData",
    "PreferenceData",
    "Preprocess",
    "SequenceToSequence",
    "TextData",
    "TextTraining",
    "Tokenizer",
    "Training",
]
