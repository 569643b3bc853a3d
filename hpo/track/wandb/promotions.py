"""Promotions on their way to W&B: kept in the study's folder, so that one which W&B did not take is not lost."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from hpo.folder import StudyFolder, StudyRecord, write_atomically
from hpo.track.mlflow.registry import PromotionRun
from hpo.track.wandb.contents import Content, promotion_run
from hpo.track.wandb.destination import runs_folder


def keep(folder: StudyFolder, record: StudyRecord, promotion: PromotionRun) -> None:
    """Put a promotion where the study's next `sync` finds it."""
    content = promotion_run(record, promotion)
    place = runs_folder(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / f"{content.name}.json", json.dumps(dataclasses.asdict(content), default=str) + "\n")


def kept(folder: StudyFolder) -> Iterator[Content]:
    """Every promotion of a study, written already or not."""
    for path in sorted(runs_folder(folder).glob("promotion-*.json")):
        yield Content.from_json(json.loads(path.read_text(encoding="utf-8")))
