"""What lies on disk is loaded without asking the network."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from models import pretrained


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
