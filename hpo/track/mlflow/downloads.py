"""The files of a registered model, where they lie or fetched from the server that keeps them."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hpo.errors import HpoError, UserError, did_you_mean
from hpo.track.mlflow import store

_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def fetch(uri: str, reference: str) -> tuple[str, Path]:
    """A registered model's name and the folder of its files.

    Args:
        uri: from `store.tracking_uri`.
        reference: `models:/NAME@alias` or `models:/NAME/VERSION`.

    A folder on this machine is used where it lies; from a server it is fetched into a temporary folder, which
    goes with this process.

    Raises:
        UserError: there is no such model, alias or version.
        HpoError: the registry cannot be reached.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise UserError(
            f"{reference}: expected models:/NAME@alias or models:/NAME/VERSION, such as models:/x@champion."
        )
    if (path := store.sqlite_path(uri)) is not None and not path.exists():
        raise UserError(
            f"no model {found['name']!r}: there is no registry at {uri}. MLFLOW_TRACKING_URI names another."
        )
    try:
        client = store.client(uri)
        version = _version(client, found["name"], found["alias"], found["version"])
        return found["name"], _data(_files(client, uri, found["name"], version))
    except HpoError:
        raise
    except Exception as error:  # whatever a registry's client raises
        raise HpoError(
            f"the model registry at {_without_password(uri)} does not answer: {store.line_of(error)}"
        ) from error


def _version(client: Any, name: str, alias: str | None, version: str | None) -> str:
    """The version's number. Raises UserError where there is none, saying what there is."""
    from mlflow.exceptions import MlflowException

    try:
        registered = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = [model.name for model in client.search_registered_models()]
        raise UserError(f"no model {name!r} in the registry.{did_you_mean(name, names)}") from None
    if alias is not None:
        aliases = dict(registered.aliases)
        if alias not in aliases:
            hint = did_you_mean(alias, aliases) or " It has none."
            raise UserError(f"model {name!r} has no alias {alias!r}.{hint}")
        return str(aliases[alias])
    versions = sorted(int(found.version) for found in client.search_model_versions(f"name = '{name}'"))
    if int(version or 0) not in versions:
        raise UserError(f"model {name!r} has no version {version}; it has {', '.join(map(str, versions)) or 'none'}.")
    return str(version)


def _files(client: Any, uri: str, name: str, version: str) -> Path:
    """The folder that was registered."""
    from mlflow.artifacts import download_artifacts

    source = client.get_model_version_download_uri(name, version)
    if source.startswith("models:/"):  # a logged model, which knows where it is
        source = client.get_logged_model(source.removeprefix("models:/")).artifact_location
    local = source.removeprefix("file://")
    if local.startswith("/"):
        if not Path(local).is_dir():
            raise UserError(f"version {version} of model {name!r} was kept in {local}, which is not there any more.")
        return Path(local)
    fetched = tempfile.mkdtemp(prefix="hpo-model-")
    atexit.register(shutil.rmtree, fetched, ignore_errors=True)
    return Path(download_artifacts(artifact_uri=source, dst_path=fetched, tracking_uri=uri))


def _data(files: Path) -> Path:
    """The model's own folder within what was registered: MLflow's description says where it lies."""
    from mlflow.models import Model

    if not (files / "MLmodel").is_file():
        return files
    data = Model.load(str(files)).flavors.get("python_function", {}).get("data")
    return files / str(data) if data else files


def _without_password(uri: str) -> str:
    return re.sub(r"(?<=//)[^/@]*@", "", uri)
