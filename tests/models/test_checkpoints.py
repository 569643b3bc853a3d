"""Checkpoints: whole or not there, the newest only, and nothing but numbers in them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models import checkpoints
from models.checkpoints import Checkpoint
from models.errors import CheckpointError


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint({"value": value}, {"model": {"w": torch.full((2, 3), value)}})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, checkpoint(0.1))
    folder = checkpoints.latest(tmp_path)
    assert folder is not None
    assert checkpoints.read_state(folder) == {"value": 0.1}
    assert torch.equal(checkpoints.read_tensors(folder, "model")["w"], torch.full((2, 3), 0.1))


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        checkpoints.write(tmp_path, checkpoint(value))
    (folder,) = tmp_path.iterdir()
    assert checkpoints.read_state(folder) == {"value": 3.0}


def test_an_empty_or_missing_folder_has_none(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(tmp_path / "missing") is None


def test_a_write_cut_short_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write(tmp_path, checkpoint(1.0))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(tmp_path, checkpoint(2.0))
    monkeypatch.undo()
    folder = checkpoints.latest(tmp_path)
    assert folder is not None
    assert checkpoints.read_state(folder) == {"value": 1.0}
    checkpoints.write(tmp_path, checkpoint(3.0))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000002"]


def test_of_two_left_by_a_kill_the_newer_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write(tmp_path, checkpoint(1.0))
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda *_, **__: None)
    checkpoints.write(tmp_path, checkpoint(2.0))
    assert len(list(tmp_path.iterdir())) == 2
    folder = checkpoints.latest(tmp_path)
    assert folder is not None
    assert checkpoints.read_state(folder) == {"value": 2.0}


class Tied(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_are_kept_once_and_stay_tied(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    checkpoints.write(tmp_path, Checkpoint({}, {"model": checkpoints.weights(model)}))
    folder = checkpoints.latest(tmp_path)
    assert folder is not None
    saved = checkpoints.read_tensors(folder, "model")
    assert list(saved) == ["embedding.weight"]
    checkpoints.load_weights(other, saved)
    assert torch.equal(other.head.weight, model.head.weight)
    assert other.head.weight is other.embedding.weight


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"must hold the weights of this model, got others: embedding\.weight"):
        checkpoints.load_weights(Tied(4), checkpoints.weights(Tied(3)))


def test_a_state_that_is_no_json_is_named(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, checkpoint(1.0))
    (tmp_path / "checkpoint-000001" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="checkpoint-000001: cannot be read"):
        checkpoints.read_state(tmp_path / "checkpoint-000001")
