"""What makes a run the same run."""

from pathlib import Path

from models import identity
from models.configuration import Augment, Causal, Tokenizer
from models.language_modelling import Config


def test_a_run_from_another_base_at_the_same_place_is_another_run(tmp_path: Path) -> None:
    config = Config(model=Causal(pretrained=str(tmp_path)), tokenizer=Tokenizer(kind="pretrained"))
    found = []
    for content in ("one", "two!"):
        (tmp_path / "model.safetensors").write_text(content)
        found.append(identity.of(config, seed=0, rungs=[], digest="d"))
    assert found[0] != found[1]


def test_a_run_with_other_synonyms_is_another_run(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    config = Config(augment=Augment(synonyms=0.1, synonyms_file=str(path)))
    found = []
    for content in ("big, large\n", "small, little\n"):
        path.write_text(content)
        found.append(identity.of(config, seed=0, rungs=[], digest="d"))
    assert found[0] != found[1]


def test_how_often_a_run_is_saved_does_not_matter() -> None:
    configs = [Config(checkpoint_seconds=seconds) for seconds in (0.0, 60.0)]
    one, other = (identity.of(config, seed=0, rungs=[3, 1], digest="d") for config in configs)
    assert one == other
    assert one["rungs"] == [1, 3]
