"""What lies on disk is loaded without asking the network."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import GPT2Config

from models import pretrained
from models.configuration import Causal
from models.errors import DataError, SettingError


class Auto:
    """Loads like a class of transformers, and notes what it was asked."""

    asked: ClassVar[list[tuple[Any, dict[str, Any]]]] = []

    @classmethod
    def from_pretrained(cls, name: Any, **options: Any) -> str:
        cls.asked.append((name, options))
        if name == "owner/new" and options.get("local_files_only"):
            raise OSError("not in the cache")
        return "loaded"


@pytest.fixture(autouse=True)
def forget() -> None:
    Auto.asked.clear()


def test_a_folder_is_loaded_as_it_is(tmp_path: Path) -> None:
    assert pretrained.load(Auto, str(tmp_path), dtype="x") == "loaded"
    assert Auto.asked == [(tmp_path, {"dtype": "x"})]


def test_what_was_downloaded_before_is_not_asked_for_again() -> None:
    pretrained.load(Auto, "owner/known")
    assert Auto.asked == [("owner/known", {"local_files_only": True})]


def test_what_is_not_on_disk_is_downloaded() -> None:
    assert pretrained.load(Auto, "owner/new") == "loaded"
    assert Auto.asked[1:] == [("owner/new", {})]


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "studies/x/model"])
def test_a_path_that_is_not_there_is_never_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        pretrained.load(Auto, name)
    assert Auto.asked == []


def folder(path: Path, **settings: Any) -> str:
    GPT2Config(n_positions=32, n_layer=2, n_head=2, n_embd=16, **settings).save_pretrained(path)
    return str(path)


def test_a_pretrained_model_that_is_not_there_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.pretrained: cannot load .*no such folder.*promote its study first"):
        pretrained.fits(Causal(pretrained=str(tmp_path / "nowhere")))


def test_a_context_beyond_its_positions_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"model\.context: at most the 32 positions .*, got 64"):
        pretrained.fits(Causal(pretrained=folder(tmp_path), context=64))


def test_more_frozen_blocks_than_it_has_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"freeze_layers: at most the 2 blocks .*, got 3"):
        pretrained.fits(Causal(pretrained=folder(tmp_path), context=16), freeze_layers=3)


def test_a_model_that_suits_is_accepted(tmp_path: Path) -> None:
    pretrained.fits(Causal(pretrained=folder(tmp_path), context=32), freeze_layers=2)
    pretrained.fits(Causal())
