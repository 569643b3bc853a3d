"""Give a promoted model its card, its run, its version in the registry, and the name `champion` if it earned it.

Knows what a promotion found and asks `hpo.track` to write it down.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpo import deployment
from hpo.errors import HpoError
from hpo.folder import StudyFolder, StudyRecord, write_atomically
from hpo.journal import History
from hpo.objective import Objective
from hpo.operation import MlflowSettings
from hpo.promote import FRONT_MATTER, Promotion, beats, data_digest, model_card, model_folder, test_metric
from hpo.track import pump, words
from hpo.track.mlflow.registry import Candidate, Champion, PromotionRun, champion, crown, log_promotion, register
from hpo.track.mlflow.runs import delete_study
from hpo.track.mlflow.store import tracking_uri
from hpo.track.wandb import promotions
from hpo.wording import number


def publish(
    promotion: Promotion, place: StudyFolder, folder: StudyFolder, objective: Objective, model_name: str | None
) -> Promotion:
    """Write the model card, log the promotion, register the model, and decide on the alias.

    Args:
        promotion: tested.
        place: its folder.
        folder: its study's.
        objective: says how the model is served and what that requires, and what it objects to.
        model_name: in the registry; the sweep's name where none is given.

    Raises:
        HpoError: the registry cannot be reached. The model is saved; the same command registers it later.
    """
    record = StudyRecord.read(folder)
    name = model_name or record.sweep_name
    card = model_card(promotion, record, place, name, deployment.instructions(record.name, model_folder(place)))
    write_atomically(model_folder(place) / "README.md", FRONT_MATTER + card)
    if record.wandb is not None:
        promotions.keep(folder, record, _run(promotion, place))
    if record.mlflow is None:
        objection = objection_to(promotion, objective)
        why = "the study is not tracked" if record.wandb is None else "the registry is MLflow's, and W&B alone has it"
        verdict = f"not registered: {why}" + (f"; and {objection}" if objection else "")
        found = {"name": name, "version": "", "alias": "", "verdict": verdict}
    else:
        uri = tracking_uri(MlflowSettings(**record.mlflow), folder.root.parent)
        try:
            found = _register(promotion, place, record, objective, name, card, uri)
        except HpoError:
            raise
        except Exception as error:
            # Whatever a registry's client raises: the work is done and kept, only its registration is not.
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise HpoError(
                f"the model is saved in {model_folder(place)}, but could not be registered: {first}. "
                f"The same command registers it later: hpo promote {record.name}"
            ) from error
    promotion = dataclasses.replace(promotion, registered=found)
    promotion.write(place)
    return promotion


def _run(promotion: Promotion, place: StudyFolder) -> PromotionRun:
    """The full run as trackers show it."""
    history = History.read(place.journal)
    winner = history.trials[max(history.trials)]
    return PromotionRun(
        number=promotion.number,
        trial=promotion.trial,
        settings=promotion.settings,
        curve=list(zip(winner.measured_at, winner.measurements, strict=True)),
        started_at=winner.started_at,
        ended_at=winner.ended_at,
        test=promotion.test,
        baseline_test=promotion.baseline_test,
        facts=promotion.facts,
    )


def _register(
    promotion: Promotion, place: StudyFolder, record: StudyRecord, objective: Objective, name: str, card: str, uri: str
) -> dict[str, str]:
    objection = objection_to(promotion, objective)
    serving = getattr(objective.module, "SERVING", None)
    tags = {
        "hpo.study": record.name,
        "hpo.study_id": record.id,
        "hpo.trial": str(promotion.trial),
        "hpo.promotion": str(promotion.number),
        "hpo.data_digest": data_digest(promotion),
        **{key: repr(value) for key, value in promotion.test.items()},
    }
    version = register(
        uri,
        Candidate(
            name=name,
            folder=model_folder(place),
            run_id=log_promotion(uri, record, _run(promotion, place)),
            serving_module=serving,
            requirements=_pinned(getattr(objective.module, "REQUIREMENTS", ())),
            description=card,
            tags=tags,
            metrics=promotion.test,
            code=_package(serving),
        ),
    )
    verdict, earned = judge(promotion, record, champion(uri, name), version, objection)
    if earned:
        crown(uri, name, version)
    return {"name": name, "version": version, "alias": "champion" if earned else "", "verdict": verdict}


def carry(folder: StudyFolder) -> str | None:
    """Bring a promotion to W&B, where the study is carried there.

    Returns:
        Why it is not there yet, in one line, or None.
    """
    if StudyRecord.read(folder).wandb is None:
        return None
    try:
        pump.sync(folder, "wandb")
    except HpoError as error:
        return str(error)
    return None


def objection_to(promotion: Promotion, objective: Objective) -> str | None:
    """Why the objective says that a promoted model should not be used, or None.

    Raises:
        HpoError: its `objection` failed.
    """
    if not objective.has("objection"):
        return None
    try:
        said = objective.call("objection", promotion.settings, tested=dict(promotion.test))
    except Exception as error:  # an objective's own code may raise anything
        raise HpoError(f"{objective.name}: objection() failed: {type(error).__name__}: {error}") from error
    return str(said) if said else None


def judge(
    promotion: Promotion, record: StudyRecord, present: Champion | None, version: str, objection: str | None = None
) -> tuple[str, bool]:
    """Whether a new version becomes the champion, and why in one sentence.

    It must beat the present champion on the test split of the same data, and not lose to its own baseline.

    objection: why the objective itself says that it should not be used.
    """
    if objection is not None:
        return objection, False
    metric = test_metric(record.metric["name"], promotion.test)
    mine = number(promotion.test[metric])
    baseline = promotion.baseline_test
    if _loses(promotion, record, baseline):
        return f"it loses to its own baseline ({metric} {mine} against {number(baseline[metric])})", False
    if present is None:
        return "there was no champion yet", True
    if present.version == version:
        return "it is the champion already", True
    if present.tags.get("hpo.data_digest") != data_digest(promotion) or metric not in present.tags:
        return f"the champion, version {present.version}, was tested on other data; they cannot be compared", False
    theirs = {metric: float(present.tags[metric])}
    against = f"{metric} {mine} against {number(theirs[metric])} of version {present.version}"
    if beats(promotion, record, theirs):
        return f"it beats the champion: {against}", True
    return f"it does not beat the champion: {against}", False


def _loses(promotion: Promotion, record: StudyRecord, baseline: Mapping[str, float]) -> bool:
    metric = test_metric(record.metric["name"], promotion.test)
    return promotion.test[metric] != baseline[metric] and not beats(promotion, record, baseline)


def _pinned(packages: Sequence[str]) -> list[str]:
    """Packages at the versions installed here, which are those the model was tested with."""
    # A local label ("+cpu") names a build that an index does not have.
    return [f"{package}=={importlib.metadata.version(package).split('+')[0]}" for package in packages]


def _package(serving: str | None) -> list[Path]:
    """The folder of the package that serves the model, to be kept with it."""
    spec = None if serving is None else importlib.util.find_spec(serving.split(".")[0])
    if spec is None or not spec.submodule_search_locations:
        return []
    return [Path(spec.submodule_search_locations[0])]


def forget(folder: StudyFolder) -> str | None:
    """Put a study's runs into the tracker's bin. Registered models stay, and so does what was uploaded to W&B.

    Returns:
        What is left and why, in one line, or None.
    """
    record = StudyRecord.read(folder)
    if record.mlflow is None:
        return words.uploaded(record)
    try:
        delete_study(record, tracking_uri(MlflowSettings(**record.mlflow), folder.root.parent))
    except Exception as error:  # whatever a tracker's client raises: the study itself can be deleted all the same
        return (str(error).splitlines() or [type(error).__name__])[0]
    return words.uploaded(record)
