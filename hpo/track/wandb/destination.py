"""Where a study's runs go at W&B: online or offline, which server, which project. Reads no more than is needed.

Does not import the library: the command line asks this too.
"""

from __future__ import annotations

import configparser
import netrc
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hpo.folder import StudyFolder, StudyRecord
from hpo.operation import WandbSettings

_CLOUD = "https://api.wandb.ai"
_OFFLINE = ("offline", "dryrun", "disabled")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where runs go.

    Attributes:
        server: None offline.
        project: at W&B.
        entity: a user or team; None: the key's own.
    """

    server: str | None
    project: str
    entity: str | None

    @property
    def online(self) -> bool:
        return self.server is not None

    @property
    def shown(self) -> str:
        """For people, without a secret."""
        owner = f"{self.entity}/" if self.entity else ""
        return f"{self.server or 'offline'}, project {owner}{self.project}"

    @property
    def page(self) -> str | None:
        """The project's page in a browser, where its address is known."""
        if self.server is None or self.entity is None:
            return None
        site = "https://wandb.ai" if self.server == _CLOUD else self.server
        return f"{site}/{self.entity}/{self.project}"


def destination(settings: WandbSettings, sweep_name: str) -> Destination:
    """Where runs go, by the sweep and by the environment of this process."""
    online = settings.mode == "online"
    if settings.mode == "auto":
        online = os.environ.get("WANDB_MODE", "online").lower() not in _OFFLINE and has_key()
    project = settings.project or sweep_name
    return Destination(server() if online else None, project, settings.entity or os.environ.get("WANDB_ENTITY") or None)


def of_study(record: StudyRecord) -> Destination:
    """Where a study's runs go now. It must be tracked by W&B."""
    fields: dict[str, Any] = record.wandb or {}
    return destination(WandbSettings(**fields), record.sweep_name)


def server() -> str:
    """The W&B server: WANDB_BASE_URL, else where the user logged in, else the public one. Without a password."""
    address = os.environ.get("WANDB_BASE_URL") or _logged_in_at() or _CLOUD
    parts = urlsplit(address.rstrip("/"))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _logged_in_at() -> str | None:
    """What `wandb login --host` noted down."""
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings = configparser.ConfigParser()
    try:
        settings.read(folder / "settings", encoding="utf-8")
    except (OSError, ValueError, configparser.Error):
        return None
    return settings.get("default", "base_url", fallback=None)


def has_key() -> bool:
    """Whether W&B would find a key or an identity token for its server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(server()).hostname or "") is not None
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False


def runs_folder(folder: StudyFolder) -> Path:
    """Where the library keeps a study's runs."""
    return folder.tracking / "wandb"


def upload_command(folder: StudyFolder) -> str:
    """What uploads runs that were written offline, all of them or those that are new."""
    return f"wandb sync {shlex.quote(str(runs_folder(folder)))}"


def offline_runs(folder: StudyFolder) -> int:
    """How many runs lie there and were not uploaded yet."""
    found = runs_folder(folder).glob("offline-run-*/*.wandb")
    return sum(not path.with_name(f"{path.name}.synced").exists() for path in found)
