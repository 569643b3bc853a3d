"""How a study is carried out: the sections of a sweep that do not change what is searched.

Where trials run, what happens when they fail, what may be spent, who is told. Each section is a frozen type
and a function that reads it; what is wrong is noted in the document, and the part left at its default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from hpo.document import Document, Path_

EVENTS = ("finished", "failed", "budget", "best")
_VARIABLE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Launch:
    """Where trials run. `auto` slots: one a GPU, else one for each `threads` CPU cores.

    Attributes:
        keep: which trials' working folders (checkpoints) stay once they have ended: the best one's, or all.
        checkpoints_gib: what the checkpoints of trials that the stopping rule set aside may take on disk, in GiB;
            `auto`: a quarter of what is free as the run begins. Beyond it, the least promising are given up.
        memory_gib: what a trial's process may take of the host's memory, in GiB; None: all there is.
    """

    slots: int | Literal["auto"] = "auto"
    trials_per_gpu: int = 1
    threads: int | Literal["auto"] = "auto"
    keep: Literal["best", "all"] = "best"
    memory_gib: float | None = None
    checkpoints_gib: float | Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True)
class OnFailure:
    """What happens when a trial does not end by itself.

    Attributes:
        retries: how often a trial that was killed, crashed, hung or lost its machine begins again from its last
            checkpoint, before that is its ending.
        wait_seconds: before the first retry; each further wait is twice as long.
        out_of_memory: `divide`: go on from the last checkpoint with half the sequences in each forward pass, the
            batch and the curve unchanged, as often as it can be divided. `end`: end the trial.
        hung_after: a trial that does not measure for so many times the longest time between two measurements of
            this study (and at least five minutes) hangs, and is ended. None: never.
        same_error: so many trials in a row that failed alike stop the study.
        slot_failures: a slot in which so many trials in a row failed, were killed or hung, while others completed
            theirs, is taken out of service.
    """

    retries: int = 2
    wait_seconds: float = 5.0
    out_of_memory: Literal["divide", "end"] = "divide"
    hung_after: float | None = 10.0
    same_error: int = 3
    slot_failures: int = 3


@dataclass(frozen=True, slots=True)
class Budget:
    """What a study may spend over all its runs; whichever is reached first stops it, to be resumed with more.

    Attributes:
        seconds: of wall time.
        gpu_hours: hours of GPUs held by trials, a share of one where several trials share it; on a machine without
            GPUs a slot counts as one.
        cost: in whatever currency `price_per_gpu_hour` is in.
        price_per_gpu_hour: of one GPU; None where nobody said.
    """

    seconds: float | None = None
    gpu_hours: float | None = None
    cost: float | None = None
    price_per_gpu_hour: float | None = None


@dataclass(frozen=True, slots=True)
class MlflowSettings:
    """Where runs go: None means MLFLOW_TRACKING_URI, else the store beside the studies."""

    tracking_uri: str | None = None
    experiment: str | None = None


@dataclass(frozen=True, slots=True)
class WandbSettings:
    """Where W&B runs go.

    Attributes:
        project: the sweep file's name if not given.
        entity: a user or team; the key's own if not given.
        mode: `auto` is online where there is a key, else offline.
    """

    project: str | None = None
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"


@dataclass(frozen=True, slots=True)
class Notify:
    """Who is told of what.

    Attributes:
        on: of "finished", "failed", "budget" (reached) and "best" (a new one).
        command: a shell command, given the message in its environment.
        webhook: an environment variable that holds an address to post JSON to; the address is a secret.
    """

    on: tuple[str, ...] = ("finished", "failed", "budget")
    command: str | None = None
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """A PostgreSQL database that several coordinators share a study through.

    Attributes:
        address: postgresql://user@host/database, without a password.
        lost_after_seconds: without a sign of life, after which a coordinator's trials are taken over by others.
    """

    address: str
    lost_after_seconds: float = 60.0


def launch(document: Document) -> Launch:
    path: Path_ = ("launch",)
    keys = ("slots", "trials_per_gpu", "threads", "keep", "memory_gib", "checkpoints_gib")
    values = document.known(path, document.tree.get("launch"), keys)
    return Launch(
        slots=document.whole(path, values, "slots", "auto", 1, ("auto",)),
        trials_per_gpu=document.whole(path, values, "trials_per_gpu", 1, 1),
        threads=document.whole(path, values, "threads", "auto", 1, ("auto",)),
        keep=document.word(path, values, "keep", ("best", "all")),
        memory_gib=document.number(path, values, "memory_gib"),
        checkpoints_gib=_checkpoints(document, path, values),
    )


def _checkpoints(document: Document, path: Path_, values: Mapping[str, Any]) -> float | Literal["auto"]:
    if values.get("checkpoints_gib", "auto") == "auto":
        return "auto"
    found = document.number(path, values, "checkpoints_gib", 0.0, "auto")
    return "auto" if found is None else found


def on_failure(document: Document) -> OnFailure:
    path: Path_ = ("on_failure",)
    default = OnFailure()
    keys = ("retries", "wait", "out_of_memory", "hung_after", "same_error", "slot_failures")
    values = document.known(path, document.tree.get("on_failure"), keys)
    wait = document.seconds((*path, "wait"), values.get("wait"), zero=True)
    hung = values.get("hung_after", default.hung_after)
    return OnFailure(
        retries=document.whole(path, values, "retries", default.retries, 0),
        wait_seconds=default.wait_seconds if wait is None else wait,
        out_of_memory=document.word(path, values, "out_of_memory", ("divide", "end")),
        hung_after=None if hung == "never" else document.number(path, {"hung_after": hung}, "hung_after", 1.0, "never"),
        same_error=document.whole(path, values, "same_error", default.same_error, 2),
        slot_failures=document.whole(path, values, "slot_failures", default.slot_failures, 2),
    )


def budget(document: Document) -> Budget:
    """All but `trials`, which belongs to the search and may stand here too."""
    path: Path_ = ("budget",)
    keys = ("trials", "time", "gpu_hours", "cost", "price_per_gpu_hour")
    values = document.known(path, document.tree.get("budget"), keys)
    found = Budget(
        seconds=document.seconds((*path, "time"), values.get("time")),
        gpu_hours=document.number(path, values, "gpu_hours"),
        cost=document.number(path, values, "cost"),
        price_per_gpu_hour=document.number(path, values, "price_per_gpu_hour"),
    )
    if found.cost is not None and found.price_per_gpu_hour is None:
        document.wrong((*path, "cost"), "requires the price of a GPU: add price_per_gpu_hour.")
    return found


def track(document: Document) -> tuple[MlflowSettings | None, WandbSettings | None]:
    """The trackers a study is copied to. None: not to this one."""
    node = document.tree.get("track", {"mlflow": None})
    if isinstance(node, list) and all(isinstance(name, str) for name in node):
        node = dict.fromkeys(node)
    values = document.known(("track",), node, ("mlflow", "wandb"))
    mlflow: MlflowSettings | None = None
    if values.get("mlflow", False) is not False:
        settings = _texts(document, "mlflow", values["mlflow"], ("tracking_uri", "experiment"))
        mlflow = MlflowSettings(_without_password(document, settings.get("tracking_uri")), settings.get("experiment"))
    wandb: WandbSettings | None = None
    if values.get("wandb", False) is not False:
        settings = _texts(document, "wandb", values["wandb"], ("project", "entity", "mode"))
        mode = document.word(("track", "wandb"), settings, "mode", ("auto", "online", "offline"))
        wandb = WandbSettings(settings.get("project"), settings.get("entity"), mode)
    return mlflow, wandb


def _without_password(document: Document, address: str | None) -> str | None:
    """A sweep is copied into its study and to its trackers, and so would be the password."""
    if address is None or urlsplit(address).password is None:
        return address
    rule = "requires an address without a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    document.wrong(("track", "mlflow", "tracking_uri"), f"{rule}, or the whole address as MLFLOW_TRACKING_URI.")
    return None


def _texts(document: Document, tracker: str, node: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    path: Path_ = ("track", tracker)
    settings = document.known(path, {} if node is True else node, keys)
    for key, value in list(settings.items()):
        if value is not None and (not isinstance(value, str) or not value):
            document.wrong((*path, key), f"requires text, got {value!r}.")
            del settings[key]
    return settings


def notify(document: Document) -> Notify | None:
    """Who is told of a study's turns, or None."""
    path: Path_ = ("notify",)
    node = document.tree.get("notify")
    if node is None:
        return None
    values = document.known(path, node, ("on", "command", "webhook"))
    on = values.get("on", list(Notify().on))
    on = [on] if isinstance(on, str) else on
    if not isinstance(on, list) or not on or any(event not in EVENTS for event in on):
        document.wrong((*path, "on"), f"requires some of {', '.join(EVENTS)}, got {on!r}.")
        on = []
    command, webhook = values.get("command"), values.get("webhook")
    if command is not None and (not isinstance(command, str) or not command.strip()):
        document.wrong((*path, "command"), f"requires a shell command, got {command!r}.")
        command = None
    if webhook is not None and (not isinstance(webhook, str) or not _VARIABLE.fullmatch(webhook)):
        # Such an address is a password: whoever has it can post. It must not stand in a file that is shared.
        document.wrong((*path, "webhook"), "requires the environment variable that holds the address: $HPO_WEBHOOK.")
        webhook = None
    if command is None and webhook is None and not document.mistakes:
        document.wrong(path, "requires a command or a webhook.")
    return Notify(tuple(on), command, webhook)


def storage(document: Document) -> Storage | None:
    """Where several coordinators share a study, or None: this folder alone."""
    node = document.tree.get("storage")
    if node is None:
        return None
    written = node if isinstance(node, dict) else {"address": node}
    values = document.known(("storage",), written, ("address", "lost_after"))
    address = values.get("address")
    path: Path_ = ("storage", "address") if isinstance(node, dict) else ("storage",)
    lost_after = document.seconds(("storage", "lost_after"), values.get("lost_after"))
    if (rule := refused_address(address)) is not None:
        document.wrong(path, rule)
        return None
    return Storage(str(address)) if lost_after is None else Storage(str(address), lost_after)


def refused_address(address: object) -> str | None:
    """What is wrong with the address of a database, or None. A password in it is not repeated: it would be logged."""
    if not isinstance(address, str) or urlsplit(address).scheme not in ("postgresql", "postgres"):
        return f"requires an address such as postgresql://user@host/database, got {address!r}."
    if urlsplit(address).password is not None or "password=" in urlsplit(address).query:
        return "requires an address without a password: set PGPASSWORD, or use ~/.pgpass."
    return None


def warm_start(document: Document) -> tuple[str, ...]:
    """Studies to begin with what they learned: names, folders or archives."""
    node = document.tree.get("warm_start")
    names = [node] if isinstance(node, str) else node
    if names is None:
        return ()
    if not isinstance(names, list) or any(not isinstance(name, str) or not name for name in names):
        document.wrong(("warm_start",), f"requires a list of studies, by name or path, got {node!r}.")
        return ()
    return tuple(names)
