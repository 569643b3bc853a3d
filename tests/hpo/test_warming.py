"""A warm start: what is taken of other studies, what is not, and that the study is otherwise as any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from hpo import warming
from hpo.errors import SweepError
from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.relocation import export_study, import_study
from hpo.run import conduct, create, read_sweep, reopen
from hpo.study import Study
from hpo.sweep import SAMPLERS
from hpo.trials import Ending
from hpo.warming import Source, learn

Write = Callable[..., Path]
STUDIES = Path("studies")
WARM = ("track: {}", "track: {}\nwarm_start: [old]")


def ran(sweep: Path, name: str, trials: int | None = None) -> StudyFolder:
    planned, folder = create(sweep, STUDIES, name, [] if trials is None else [f"search.trials={trials}"])
    conduct(planned, folder, console=Console(quiet=True), inline=True)
    return folder


def history(folder: StudyFolder) -> History:
    return History.read(folder.journal)


@pytest.fixture
def old(write_sweep: Write) -> StudyFolder:
    """A study of 12 trials, some of them stopped early."""
    rule = "  seed: 3\n  sampler: tpe\n  pruner: median"
    return ran(write_sweep(("trials: 6", "trials: 12"), ("  seed: 3", rule)), "old")


def learned(sweep: Path) -> Source:
    (source,) = learn(read_sweep(sweep, [])[1], STUDIES)
    return source


def test_trials_that_were_the_same_in_all_else_are_taken_with_their_values(
    old: StudyFolder, write_sweep: Write
) -> None:
    source = learned(write_sweep(WARM))
    trials = history(old).trials
    assert [(lesson.number, lesson.parameters, lesson.ending) for lesson in source.lessons] == [
        (t.number, t.parameters, t.ending) for t in trials.values()
    ]
    assert {lesson.ending for lesson in source.lessons} == {Ending.COMPLETE, Ending.STOPPED}
    assert [le.value for le in source.lessons if le.ending is Ending.COMPLETE] == [
        t.value for t in trials.values() if t.ending is Ending.COMPLETE
    ]
    assert source.lessons[0].curve[-1] == (900, trials[0].value)
    assert (source.suggestions, dict(source.left_out)) == ((), {})


def test_what_lies_outside_this_space_is_left_out_and_counted(old: StudyFolder, write_sweep: Write) -> None:
    source = learned(write_sweep(WARM, ("high: 1e-1", "high: 1e-2")))
    outside = [t for t in history(old).trials.values() if float(str(t.parameters["learning_rate"])) > 1e-2]
    assert outside
    assert source.left_out == {"with learning_rate outside this space": len(outside)}
    assert len(source.lessons) == 12 - len(outside)


def test_a_setting_that_was_fixed_there_and_is_searched_here_is_taken_from_what_was_fixed(
    write_sweep: Write, workplace: Path
) -> None:
    ran(write_sweep(("  tokens: 900", "  tokens: 900\n  momentum: 0.8")), "old")
    source = learned(write_sweep(WARM, ("space:\n", "space:\n  momentum: {low: 0.5, high: 0.99}\n")))
    assert {lesson.parameters["momentum"] for lesson in source.lessons} == {0.8}
    assert len(source.lessons) == 6


def test_of_a_setting_that_is_fixed_here_only_trials_with_that_value_are_taken(
    old: StudyFolder, write_sweep: Write
) -> None:
    path = write_sweep(
        WARM, ("  model.dropout: {low: 0, high: 0.5, step: 0.1}\n", ""), ("  tokens: 900", "  tokens: 900\n  model.dropout: 0.1")
    )  # fmt: skip
    source = learned(path)
    alike = [t.number for t in history(old).trials.values() if t.parameters["model.dropout"] == 0.1]
    assert [lesson.number for lesson in source.lessons] == alike
    assert all(set(lesson.parameters) == {"learning_rate"} for lesson in source.lessons)
    assert [reason for reason in source.left_out if "model.dropout" in reason]
    assert len(source.suggestions) == 3


def test_where_anything_else_differs_only_the_best_configurations_are_tried_first(
    old: StudyFolder, write_sweep: Write
) -> None:
    source = learned(write_sweep(WARM, ("tokens: 900", "tokens: 1800")))
    complete = [t for t in history(old).trials.values() if t.ending is Ending.COMPLETE]
    ranked = sorted(complete, key=lambda t: t.value or 0.0)
    assert source.lessons == ()
    assert list(source.suggestions) == [t.parameters for t in ranked[:3]]
    assert source.differs == "tokens is 900 there, 1800 here"
    folder = ran(write_sweep(WARM, ("tokens: 900", "tokens: 1800")), "new", 5)
    assert [t.parameters for t in history(folder).trials.values()][1:4] == [t.parameters for t in ranked[:3]]


def test_what_one_study_has_a_value_of_is_not_tried_first_for_another(old: StudyFolder, write_sweep: Write) -> None:
    ran(write_sweep(("trials: 6", "trials: 12"), ("tokens: 900", "tokens: 1800")), "longer")
    path = write_sweep(("track: {}", "track: {}\nwarm_start: [longer, old]"))
    longer, same = learn(read_sweep(path, [])[1], STUDIES)
    valued = [lesson.parameters for lesson in same.lessons]
    assert valued
    assert not [parameters for parameters in longer.suggestions if parameters in valued]


def test_values_on_other_data_are_not_believed(old: StudyFolder, write_sweep: Write, workplace: Path) -> None:
    objective = workplace / "objective.py"
    objective.write_text(objective.read_text().replace('"digest": "d1"', '"digest": "another"'))
    folder = ran(write_sweep(WARM), "new", 3)
    (source,) = warming.read(folder.warm)
    assert (source.lessons, source.differs) == ((), "it was measured on other data")
    assert history(folder).trials[1].parameters == source.suggestions[0]


@pytest.mark.parametrize("strategy", ["pruner: hyperband", "sampler: cma-es"])
def test_spaces_with_conditions_and_brackets_of_trials_are_warmed_too(
    strategy: str, write_sweep: Write, workplace: Path
) -> None:
    conditional = "space:\n  optimizer: [adamw, sgd]\n  momentum: {low: 0.5, high: 0.99, when: {optimizer: sgd}}\n"
    changes = [("space:\n", conditional), ("  seed: 3", f"  seed: 3\n  {strategy}")]
    ran(write_sweep(("space:\n", conditional), ("trials: 6", "trials: 12")), "old")
    new = ran(write_sweep(WARM, *changes), "new", 4)
    (source,) = warming.read(new.warm)
    assert {"momentum" in lesson.parameters for lesson in source.lessons} == {True, False}
    assert len(source.lessons) == 12
    assert len(history(new).ended) == 4


@pytest.mark.parametrize("sampler", [*SAMPLERS, "optuna.samplers:NSGAIISampler"])
def test_with_any_sampler_the_study_is_as_any_other_and_goes_on_as_it_would_have(
    sampler: str, old: StudyFolder, write_sweep: Write, workplace: Path
) -> None:
    changes = [WARM, ("  seed: 3", f"  seed: 7\n  sampler: {sampler}\n  pruner: median"), ("trials: 6", "trials: 4")]
    if sampler == "grid":
        changes.append(("{low: 1e-5, high: 1e-1, log: true}", "[1e-4, 1e-3, 3e-3]"))
    path = write_sweep(*changes)
    whole = ran(path, "whole")
    cut = ran(path, "cut", 2)
    shutil.rmtree(old.root)  # what was learned is in the study's own folder
    conduct(reopen(cut, 4), cut, console=Console(quiet=True), inline=True)
    assert list(history(cut).trials) == [0, 1, 2, 3]
    assert [t.parameters for t in history(cut).trials.values()] == [
        t.parameters for t in history(whole).trials.values()
    ]
    planned, _ = read_sweep(path, [])[1], None
    assert len(Study(planned, cut, history(cut), 1).mirror.trials) == 4


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 6), ("gp", 3), ("cma-es", 6)])
def test_samplers_that_learn_begin_where_the_other_study_ended(
    sampler: str, trials: int, write_sweep: Write, workplace: Path
) -> None:
    changes = [("  seed: 3", f"  seed: 7\n  sampler: {sampler}\n  pruner: none"), ("trials: 6", f"trials: {trials}")]
    ran(write_sweep(("  seed: 3", "  seed: 3\n  sampler: random\n  pruner: none"), ("trials: 6", "trials: 30")), "old")
    cold, warm = ran(write_sweep(*changes), "cold"), ran(write_sweep(WARM, *changes), "warm")

    def mean(folder: StudyFolder) -> float:
        values = [t.value for t in history(folder).trials.values() if t.number and t.value is not None]
        return sum(values) / len(values)

    assert mean(warm) < mean(cold)


def test_an_archive_is_learned_from_as_its_study_is(old: StudyFolder, write_sweep: Write, workplace: Path) -> None:
    (workplace / "away").mkdir()
    packed = export_study(old, workplace / "away" / "old.hpo.zip")
    from_study = learned(write_sweep(WARM))
    shutil.rmtree(old.root)
    from_archive = learned(write_sweep(("track: {}", f"track: {{}}\nwarm_start: [{packed}]")))
    assert from_archive == from_study


def test_an_exported_study_takes_along_what_it_learned(old: StudyFolder, write_sweep: Write, workplace: Path) -> None:
    new = ran(write_sweep(WARM), "new", 2)
    arrival = import_study(export_study(new, None), workplace / "there")
    assert warming.read(arrival.folder.warm) == warming.read(new.warm) != ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("warm_start: [old]", "warm_start: [odl]"), "no study 'odl' in studies.* Did you mean 'old'"),
        (("name: validation/loss", "name: validation/accuracy"), "same metric"),
        (("direction: minimize", "direction: maximize"), "same metric"),
        (("objective: objective.py:train", "objective: other.py:train"), "same objective"),
    ],
)
def test_another_search_is_refused_with_the_line_and_nothing_is_made(
    change: tuple[str, str], words: str, old: StudyFolder, write_sweep: Write, workplace: Path
) -> None:
    shutil.copy(workplace / "objective.py", workplace / "other.py")
    path = write_sweep(WARM)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(SweepError, match=words) as caught:
        create(path, STUDIES, "new", [])
    assert str(caught.value).startswith(f"{path}:13: warm_start.0: ")
    assert not (STUDIES / "new").exists()


def test_what_was_taken_is_said_once(old: StudyFolder, write_sweep: Write, capsys: pytest.CaptureFixture[str]) -> None:
    planned, folder = create(write_sweep(WARM), STUDIES, "new", ["search.trials=2"])
    conduct(planned, folder, console=Console(), inline=True)
    assert "warm start from old: 12 trials taken with values" in capsys.readouterr().out
    conduct(reopen(folder, 3), folder, console=Console(), inline=True)
    assert "warm start" not in capsys.readouterr().out
