"""What trackers have to say to people at the end of a command, in one line each. Calls none of them."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.errors import UserError
from hpo.folder import StudyFolder, StudyRecord
from hpo.operation import MlflowSettings, WandbSettings
from hpo.track import TITLES
from hpo.track.pump import Pump
from hpo.track.wandb import destination
from hpo.track.wandb.contents import group


def catching_up(pumps: Sequence[Pump]) -> str:
    """What is being waited for."""
    titles = [pump.title for pump in pumps]
    return f"{' and '.join(titles)} {'is' if len(titles) == 1 else 'are'} catching up"


def left(pump: Pump, folder: StudyFolder) -> str:
    """That a tracker has not taken everything, and why."""
    trouble = pump.trouble()
    why = f": {trouble}" if trouble else f" (see {folder.tracking / pump.tracker}.log)"
    return f"{pump.title} has not taken everything yet{why}. Nothing is lost: hpo sync {folder.name}"


def next_steps(folder: StudyFolder) -> list[str]:
    """What remains to be done by hand: uploading what W&B's library wrote offline."""
    record = StudyRecord.read(folder)
    if record.wandb is None or destination.of_study(record).online:
        return []
    count = destination.offline_runs(folder)
    return [f"W&B, {count} runs written offline. Upload them:  {destination.upload_command(folder)}"] if count else []


def plan(mlflow: MlflowSettings | None, wandb: WandbSettings | None, sweep_name: str) -> str:
    """Where a study would be carried to."""
    parts = []
    if mlflow is not None:
        where = mlflow.tracking_uri or "(MLFLOW_TRACKING_URI, else the store beside the studies)"
        parts.append(f"{TITLES['mlflow']} {where}")
    if wandb is not None:
        parts.append(f"{TITLES['wandb']} {destination.destination(wandb, sweep_name).shown}")
    return "; ".join(parts) or "none"


def wandb_page(folder: StudyFolder, record: StudyRecord) -> list[str]:
    """Where to look at a study at W&B; nothing where it is not carried there."""
    if record.wandb is None:
        return []
    there = destination.of_study(record)
    if not there.online:
        return [f"W&B: its runs lie in this folder. Upload them:  {destination.upload_command(folder)}"]
    return [f"W&B: {there.page or there.shown}"]


def without_mlflow(record: StudyRecord) -> UserError:
    """Why `hpo ui` has nothing to show of a study."""
    rule = f"study {record.name!r} is not tracked: its sweep says so (`track:`)."
    return UserError(f"{rule} hpo show {record.name} shows it here.")


def uploaded(record: StudyRecord) -> str | None:
    """What of a study stays at W&B when it is deleted here: nobody's runs there are deleted by a program."""
    if record.wandb is None:
        return None
    there = destination.of_study(record)
    return f"at {there.shown}, as group {group(record)}" if there.online else None
