"""The running mean of a model's weights, which may be what is validated and kept in their place.

Knows nothing of how the model is trained.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from models import checkpoints


class Average:
    """The running mean of a model's trained weights over its optimizer steps (Polyak averaging).

    Its decay is warmed up as min(decay, (1 + t) / (10 + t)), t the steps so far, so that the random weights of
    the beginning are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        present = checkpoints.weights(model, keep=True)
        self._trained = {name: tensor for name, tensor in present.items() if tensor.requires_grad}
        self._decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._trained.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights after a step; steps: how many there have been."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        averages = list(self.tensors.values())
        torch._foreach_lerp_(averages, list(self._trained.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self._trained.items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(own)

    def load(self, tensors: checkpoints.Tensors) -> None:
        """Take over saved averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @torch.no_grad()
    def _put(self, tensors: checkpoints.Tensors) -> None:
        for name, tensor in self._trained.items():
            tensor.copy_(tensors[name])
