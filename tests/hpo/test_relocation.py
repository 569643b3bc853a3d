"""Carrying a study elsewhere: what arrives is what left, it goes on from there, and a bad archive leaves nothing."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import stat
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from hpo import archive, cli
from hpo.archive import pack
from hpo.errors import UserError
from hpo.folder import StudyFolder, StudyRecord
from hpo.promote import Promotion, promotions
from hpo.relocation import Arrival, export_study, import_study
from hpo.report import study_json
from hpo.run import conduct, create, reopen
from hpo.summary import Summary

Change = Callable[[dict[str, bytes]], None]


@pytest.fixture
def study(workplace: Path) -> StudyFolder:
    planned, folder = create(workplace / "sweep.yaml", Path("studies"), None, [])
    conduct(planned, folder, console=Console(quiet=True), inline=True)
    return folder


@pytest.fixture
def elsewhere(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another place: a folder with the objective and nothing else; entered by the test."""
    there = workplace / "elsewhere"
    there.mkdir()
    shutil.copy(workplace / "objective.py", there)
    return there


def resumed(folder: StudyFolder, trials: int) -> Summary:
    conduct(reopen(folder, trials), folder, console=Console(quiet=True), inline=True)
    return Summary.read(folder)


def carried(study: StudyFolder, there: Path, monkeypatch: pytest.MonkeyPatch, **options: bool) -> Arrival:
    packed = export_study(study, there / "s.hpo.zip", **options).resolve()
    monkeypatch.chdir(there)
    return import_study(packed, Path("studies"))


def test_what_is_shown_of_an_imported_study_is_what_was_shown_of_it(
    study: StudyFolder, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = study_json(Summary.read(study))
    arrival = carried(study, elsewhere, monkeypatch)
    assert study_json(Summary.read(arrival.folder)) == before


def test_it_goes_on_as_it_would_have_gone_on_where_it_was(
    study: StudyFolder, elsewhere: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrival = carried(study, elsewhere, monkeypatch)
    there = resumed(arrival.folder, 14)
    monkeypatch.chdir(workplace)
    here = resumed(study, 14)
    assert [(t.number, t.parameters, t.value) for t in there.trials] == [
        (t.number, t.parameters, t.value) for t in here.trials
    ]
    assert len(there.trials) == 14


def test_what_belongs_to_a_place_stays_there(
    study: StudyFolder, elsewhere: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = dataclasses.replace(
        StudyRecord.read(study), mlflow={"tracking_uri": "sqlite:////home/me/secret.db", "experiment": "e"}
    )
    record.write(study)
    study.tracking.mkdir()
    (study.tracking / "mlflow.json").write_text("{}")
    arrival = carried(study, elsewhere, monkeypatch)
    with zipfile.ZipFile(elsewhere / "s.hpo.zip") as packed:
        text = b"".join(packed.read(name) for name in packed.namelist() if name != "journal.jsonl").decode()
    assert str(workplace) not in text
    assert "/home/me" not in text
    here = StudyRecord.read(arrival.folder)
    assert here.id != record.id
    assert here.mlflow == {"tracking_uri": None, "experiment": "e"}
    assert (here.where, here.origin) == (str(elsewhere), str(elsewhere / "sweep.yaml"))
    assert not arrival.folder.tracking.exists()


def test_the_copy_of_a_shared_study_goes_on_alone(study: StudyFolder, workplace: Path) -> None:
    shared = {"address": "postgresql://me@host/base", "place": "p1"}
    dataclasses.replace(StudyRecord.read(study), shared=shared).write(study)
    study.sweep.write_text(study.sweep.read_text() + "storage: postgresql://me@host/base\n")
    arrival = import_study(export_study(study, None), workplace / "there")
    assert StudyRecord.read(arrival.folder).shared is None
    assert len(resumed(arrival.folder, 8).trials) == 8


def test_the_archive_can_be_read_without_the_program(study: StudyFolder, workplace: Path) -> None:
    best = Summary.read(study).best
    assert best is not None
    with zipfile.ZipFile(export_study(study, None)) as packed:
        trials = list(csv.DictReader(io.StringIO(packed.read("trials.csv").decode())))
        curves = list(csv.DictReader(io.StringIO(packed.read("curves.csv").decode())))
        report = packed.read("report.md").decode()
        members = packed.namelist()
    assert [int(row["trial"]) for row in trials] == list(range(6))
    assert float(trials[best.number]["learning_rate"]) == best.parameters["learning_rate"]
    assert float(trials[best.number]["value"]) == best.value
    assert float(curves[0]["validation/loss"]) == Summary.read(study).trials[0].measurements[0].metrics[
        "validation/loss"
    ]  # fmt: skip
    assert f"Trial {best.number} beats the baseline" in report
    assert f"optuna {Summary.read(study).record.versions['optuna']}" in report
    assert not [name for name in members if name.startswith("trials/")]


def test_checkpoints_and_promoted_models_travel_only_when_asked(
    study: StudyFolder, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion = Promotion(1, study.name, "id", 1, 0.0, {}, {}, {}, test={"test/loss": 1.0})
    place = StudyFolder(study.promotion(1))
    (place.root / "model").mkdir(parents=True)
    (place.root / "model" / "weights.json").write_text("1")
    promotion.write(place)
    without = carried(study, elsewhere, monkeypatch)
    assert [p.test for p in promotions(without.folder)] == [{"test/loss": 1.0}]
    assert not (without.folder.promotion(1) / "model").exists()
    shutil.rmtree(without.folder.root)
    monkeypatch.chdir(elsewhere.parent)
    arrival = import_study(export_study(study, None, checkpoints=True), elsewhere / "studies", "other")
    best = Summary.read(arrival.folder).best
    assert best is not None
    assert json.loads((arrival.folder.trial(best.number) / "state.json").read_text()) == 900
    assert (arrival.folder.promotion(1) / "model" / "weights.json").read_text() == "1"
    adopted = promotions(arrival.folder)[0]
    assert (adopted.study, adopted.study_id) == ("other", StudyRecord.read(arrival.folder).id)


def test_the_commands_say_what_comes_next(
    study: StudyFolder, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hpo(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hpo", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    capsys.readouterr()
    assert "Elsewhere:  hpo import sweep.hpo.zip" in hpo("export", "sweep")
    imported = hpo("import", "sweep.hpo.zip", "--name", "again")
    assert "6 trials, 6 ended" in imported
    assert "Look at it:  hpo show again" in imported
    here, there = (json.loads(hpo("show", name, "--json")) for name in ("sweep", "again"))
    assert {**there, "name": "sweep"} == here
    (workplace / "objective.py").unlink()
    assert "its objective must be at" in hpo("import", "sweep.hpo.zip", "--name", "third")


def test_a_running_study_is_packed_up_to_its_last_whole_line(study: StudyFolder, workplace: Path) -> None:
    whole = study.journal.read_bytes()
    cut = whole[: whole.rfind(b'{"at"') + 7]
    study.journal.write_bytes(cut)
    with zipfile.ZipFile(export_study(study, None)) as packed:
        assert packed.read("journal.jsonl") == cut[: cut.rfind(b"\n") + 1]


def test_an_archive_that_is_there_is_replaced_only_by_force(study: StudyFolder, workplace: Path) -> None:
    path = workplace / "mine.zip"
    path.write_text("mine")
    with pytest.raises(UserError, match="--force"):
        export_study(study, path)
    assert path.read_text() == "mine"
    export_study(study, path, force=True)
    assert zipfile.is_zipfile(path)


def test_a_disk_that_fills_leaves_no_half_archive(
    study: StudyFolder, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = set(workplace.iterdir())
    monkeypatch.setattr(archive.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        export_study(study, workplace / "s.zip")
    assert set(workplace.iterdir()) == before


def test_a_name_that_is_taken_is_refused_with_a_free_one(study: StudyFolder, workplace: Path) -> None:
    packed = export_study(study, None)
    with pytest.raises(UserError, match="--name sweep-2"):
        import_study(packed, Path("studies"))
    assert import_study(packed, Path("studies"), "sweep-2").folder.exists


def remade(packed: Path, change: Change) -> Path:
    """An archive with other members, whose own list of them is right."""
    with zipfile.ZipFile(packed) as file:
        members = {name: file.read(name) for name in file.namelist() if name != "archive.json"}
    change(members)
    pack(packed, {"study": "sweep"}, [(name, [content]) for name, content in members.items()])
    return packed


def set_(name: str, content: bytes) -> Change:
    def change(members: dict[str, bytes]) -> None:
        members[name] = content

    return change


def cut_journal(members: dict[str, bytes]) -> None:
    members["journal.jsonl"] = members["journal.jsonl"][:-5]


def break_line(members: dict[str, bytes]) -> None:
    lines = members["journal.jsonl"].splitlines(keepends=True)
    lines[2] = b"{broken\n"
    members["journal.jsonl"] = b"".join(lines)


def lose_start(members: dict[str, bytes]) -> None:
    lines = members["journal.jsonl"].splitlines(keepends=True)
    members["journal.jsonl"] = b"".join(line for line in lines if b'"started"' not in line)


def misprice(members: dict[str, bytes]) -> None:
    record = json.loads(members["study.json"])
    members["study.json"] = json.dumps({**record, "rates": {"gpus_per_slot": "many"}}).encode()


BAD: dict[str, tuple[Change, str]] = {
    "a path that climbs out": (set_("../out.txt", b"x"), "does not belong"),
    "an absolute path": (set_("/tmp/out.txt", b"x"), "does not belong"),
    "a climb inside a trial": (set_("trials/0001/../../x", b"x"), "does not belong"),
    "a file that no study has": (set_("lock", b"x"), "does not belong"),
    "a record of another version": (set_("study.json", b'{"format": 99}'), "format 99"),
    "a record that lacks fields": (set_("study.json", b'{"format": 1}'), "study.json is not"),
    "a sweep that is no YAML": (set_("sweep.yaml", b"a: [1"), "not valid YAML"),
    "no journal": (lambda members: members.pop("journal.jsonl") and None, "lacks journal.jsonl"),
    "a journal cut short": (cut_journal, r"line \d+ of its journal is not whole"),
    "a damaged line": (break_line, "line 3 of its journal is damaged"),
    "a journal that does not begin its trials": (lose_start, "line 2 of its journal cannot be read"),
    "a value of a wrong kind": (misprice, "do not hold together"),
    "a promotion that is none": (set_("promotions/0001/promotion.json", b"[]"), "promotion.json"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_archive_is_refused_and_nothing_is_left(what: str, study: StudyFolder, workplace: Path) -> None:
    change, words = BAD[what]
    packed = remade(export_study(study, None), change)
    with pytest.raises(UserError, match=words):
        import_study(packed, workplace / "there")
    assert not list((workplace / "there").glob("*") if (workplace / "there").exists() else [])
    assert not (workplace.parent / "out.txt").exists()


def test_a_member_that_was_changed_is_refused(study: StudyFolder, workplace: Path) -> None:
    packed = export_study(study, None)
    with zipfile.ZipFile(packed) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["journal.jsonl"] = members["journal.jsonl"].replace(b"0.0001", b"0.0002")
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with pytest.raises(UserError, match="not what was packed"):
        import_study(packed, workplace / "there")


def test_links_and_members_that_are_there_twice_are_refused(study: StudyFolder, workplace: Path) -> None:
    for name, kind, words in (("trials/0001/x", stat.S_IFLNK, "belong"), ("sweep.yaml", stat.S_IFREG, "twice")):
        packed = export_study(study, None, force=True)
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o777) << 16
        with warnings.catch_warnings(), zipfile.ZipFile(packed, "a") as file:
            warnings.simplefilter("ignore")
            content = file.read("sweep.yaml") if name == "sweep.yaml" else b"/etc/passwd"
            file.writestr(info, content)
        with pytest.raises(UserError, match=words):
            import_study(packed, workplace / "there")


def test_a_member_that_grows_a_thousand_times_is_refused(study: StudyFolder, workplace: Path) -> None:
    zeros = b"0" * (70 * 2**20)
    packed = remade(export_study(study, None), set_("report.md", zeros))
    with pytest.raises(UserError, match=r"would grow \d+ times"):
        import_study(packed, workplace / "there")


def test_what_is_no_archive_is_one_sentence(workplace: Path) -> None:
    (workplace / "x.zip").write_text("text")
    with zipfile.ZipFile(workplace / "y.zip", "w") as file:
        file.writestr("a", "b")
    for name, words in (
        ("x.zip", "no archive of a study"),
        ("y.zip", r"has no archive\.json"),
        ("z.zip", "no archive"),
    ):
        with pytest.raises(UserError, match=words):
            import_study(workplace / name, workplace / "there")


def test_an_archive_larger_than_the_disk_is_refused(
    study: StudyFolder, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = export_study(study, None)
    usage = shutil.disk_usage(workplace)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type(usage)(usage.total, usage.used, 100))
    with pytest.raises(UserError, match="Make room"):
        import_study(packed, workplace / "there")
    assert not list((workplace / "there").iterdir())


@pytest.mark.slow
def test_a_study_and_its_import_are_two_studies_in_one_mlflow(study: StudyFolder, workplace: Path) -> None:
    from mlflow.tracking import MlflowClient

    from hpo.operation import MlflowSettings
    from hpo.track.mlflow.store import tracking_uri
    from hpo.track.pump import sync

    record = dataclasses.replace(StudyRecord.read(study), mlflow={"tracking_uri": None, "experiment": None})
    record.write(study)
    sync(study)
    arrival = import_study(export_study(study, None), Path("studies"), "again")
    sync(arrival.folder)
    client = MlflowClient(tracking_uri(MlflowSettings(), Path("studies")))
    experiment = client.get_experiment_by_name("sweep")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    names = [run.data.tags["hpo.study"] for run in runs]
    assert {name: names.count(name) for name in names} == {"sweep": 7, "again": 7}
