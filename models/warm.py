"""Imported by a fork server before it forks trials: does once what the first trial of a process does anew each time.

Building and calling a first model touches code that transformers and torch load lazily; doing it here took the time
from a trial's start to its first step from 0.08 to 0.07 s. One thread, because a pool begun here would not survive the
fork; nothing is trained, for autograd's threads would not either; no GPU is touched.
"""

import torch

from models import architectures, optimizers
from models.configuration import Causal, Training

_state, _threads = torch.get_rng_state(), torch.get_num_threads()
torch.set_num_threads(1)
for _family in ("gpt2", "llama"):
    _model = architectures.causal(
        Causal(family=_family, layers=1, width=8, heads=2, context=4), architectures.Vocabulary(16, end=0, pad=0)
    )
    optimizers.build(Training(), _model)
    with torch.no_grad():
        _model(torch.ones((1, 4), dtype=torch.long))
torch.set_rng_state(_state)
torch.set_num_threads(_threads)
del _family, _model, _state, _threads
