"""Draw the README's picture from a study that was run: python .github/live.py studies/quickstart .github/live.svg

Replays the study's journal through the live screen up to a moment two thirds in, and saves what it shows.
"""

import io
import sys
from fractions import Fraction
from pathlib import Path

from rich.console import Console

from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History, lines
from hpo.live import LiveView, Scoreboard
from hpo.trials import Assignment, Ended, Ending, Event, Measurement, Outcome, Progressed, Started


def event(line: dict) -> Event | None:
    match line["event"]:
        case "started":
            rungs = tuple(Fraction(rung) for rung in line["rungs"])
            parameters = line["parameters"]
            assignment = Assignment(line["trial"], parameters, line["settings"], line["seed"], rungs, line["protected"])
            return Started(assignment, line["slot"])
        case "measured":
            return Progressed(line["trial"], Measurement(line["progress"], line["metrics"]), 0.0, line["length"])
        case "ended":
            return Ended(line["trial"], Outcome(Ending(line["ending"]), line["reason"]), 0.0, line["value"])
    return None


def main(study: str, picture: str) -> None:
    folder = StudyFolder(Path(study))
    record = StudyRecord.read(folder)
    written = [line for _, line in lines(folder.journal)]
    first = written[0]["at"]
    now = first
    board = Scoreboard(record, History(), record.search["trials"], 2, lambda: now - first)
    for line in written[: len(written) * 2 // 3]:
        now = line["at"]
        if (happened := event(line)) is not None:
            board.add(happened)
    view = LiveView.__new__(LiveView)
    view._board, view._note = board, ""
    console = Console(record=True, width=128, file=io.StringIO())
    console.print(view._draw())
    console.save_svg(picture, title=f"hpo run {Path(record.origin).parent.name}/{Path(record.origin).name}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
