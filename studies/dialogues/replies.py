"""Replies of the promoted model, scored and quoted: one from the middle of each test dialogue.

    python studies/dialogues/replies.py studies/dialogues-chat/promotions/0001/model PATH/sgd_dev.jsonl

`hpo promote` scores the last reply of each test dialogue, which here is nearly always a farewell. This draws, by a
fixed seed, one reply of the assistant from each test dialogue, the last one left out, has the model write it after
what was really said before, and prints BLEU and ROUGE-L, and every twentieth reply. Beside the model's, the scores
of a reply drawn from the other test dialogues: what knowing nothing of the dialogue gets.
"""

from __future__ import annotations

import random
import sys

import torch

from models import scores, serving
from models.configuration import DialogueData
from models.corpora import drawn
from models.dialogues import Dialogue, Dialogues
from models.sources import locate, rows

SEED = 1


def test_dialogues(source: str) -> list[Dialogue]:
    data = DialogueData(source=source)
    kind = Dialogues(data, context=512)
    read = (kind.parse(row, where) for where, row in rows(data, locate(data), kind.columns)["train"]())
    return [one for one in read if one and drawn(kind.key(one), data.validation, data.test) == "test"]


def main(model_folder: str, source: str) -> None:
    torch.set_num_threads(1)
    chance = random.Random(SEED)
    asked, references = [], []
    for dialogue in test_dialogues(source):
        places = [place for place, message in enumerate(dialogue.messages) if message["role"] == "assistant"][:-1]
        if places:
            place = chance.choice(places)
            asked.append(list(dialogue.messages[:place]))
            references.append(dialogue.messages[place]["content"])
    model = serving.load(model_folder)
    written = [text.strip() for text in model.predict(asked, {"temperature": 0.0, "max_new_tokens": 48})]
    others = references[1:] + references[:1]
    equal = sum(one == other for one, other in zip(written, references, strict=True))
    print(f"{len(written)} replies, {equal} equal to the reference")
    for name, texts in (("model", written), ("another dialogue's reply", others)):
        print(name, {key: round(value, 2) for key, value in scores.replies("", texts, references).items()})
    for number in range(0, len(written), 20):
        said = "\n".join(f"  {message['role']}: {message['content']}" for message in asked[number][-3:])
        print(f"\n--- {number}\n{said}\n  MODEL: {written[number]}\n  DATA:  {references[number]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
