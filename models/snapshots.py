"""All that a run's next step depends on, as tensors: weights, optimizer's state, averages, random generators.

Read out for a checkpoint, copied before a branch, and put back. Knows nothing of files, nor of when that is done.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models import checkpoints
from models.averages import Average
from models.checkpoints import Tensors


class Snapshots:
    """Reads and sets the tensors of a model in training."""

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None, device: torch.device
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._average = average
        self._device = device

    def present(self) -> dict[str, Tensors]:
        """The tensors themselves, by kind and name; they change with the next step."""
        state: dict[int, dict[str, Any]] = self._optimizer.state_dict()["state"]
        tensors: dict[str, Tensors] = {
            "model": checkpoints.weights(self._module),
            "optimizer": {
                f"{index}.{key}": value
                for index, values in state.items()
                for key, value in values.items()
                if isinstance(value, torch.Tensor)
            },
            "generators": generators(self._device),
        }
        return tensors if self._average is None else {**tensors, "average": self._average.tensors}

    def copy(self) -> dict[str, Tensors]:
        """A copy of `present`, in the host's memory, of which there is more than of a GPU's."""
        return {
            kind: {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}
            for kind, tensors in self.present().items()
        }

    def put_back(self, tensors: Mapping[str, Tensors]) -> None:
        """Set all to what `present` or `copy` once gave; the optimizer may go on with these very tensors."""
        checkpoints.load_weights(self._module, tensors["model"])
        if self._average is not None:
            self._average.load(tensors["average"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors["optimizer"].items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        set_generators(self._device, tensors["generators"])


def generators(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random generators, which dropout draws from; uint8."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def set_generators(device: torch.device, states: Tensors) -> None:
    """Put back what `generators` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
