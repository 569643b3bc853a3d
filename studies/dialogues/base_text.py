"""The text that the base model of this study is trained on: the dialogues that models.chat trains on, without roles.

    python studies/dialogues/base_text.py PATH/sgd_dev.jsonl base.jsonl

Which dialogues these are is asked of models.chat's own data room, so that the base model never sees a dialogue that
validates or tests the fine-tuning.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from models.configuration import DialogueData
from models.corpora import drawn
from models.dialogues import Dialogues
from models.sources import locate, rows


def main(source: str, destination: str) -> None:
    data = DialogueData(source=source)
    kind = Dialogues(data, context=512)
    count: Counter[str] = Counter()
    with Path(destination).open("w", encoding="utf-8") as output:
        for where, row in rows(data, locate(data), kind.columns)["train"]():
            dialogue = kind.parse(row, where)
            if dialogue is None:
                continue
            split = drawn(kind.key(dialogue), data.validation, data.test)
            count[split] += 1
            if split == "train":
                output.write(json.dumps({"text": kind.text(dialogue)}, ensure_ascii=False) + "\n")
    print(f"{destination}: {count['train']} training dialogues; left out: {count['validation']}, {count['test']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
