"""The live screen of a run, and its plain lines where there is no terminal.

Shows events; decides nothing and waits for nothing. Knows the words of a search and Rich.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo import pareto
from hpo.folder import StudyRecord
from hpo.journal import History, encode
from hpo.outlook import Outlook, in_all, outlook, rates_of
from hpo.spending import Spent
from hpo.tradeoff import recorded
from hpo.trials import Assignment, Direction, Elsewhere, Ended, Ending, Event, Interrupted, Progressed, Retired, Started
from hpo.wording import STYLES, duration, number, parameters

_BARS = "▁▂▃▄▅▆▇█"
_RECENT = 6


class View(Protocol):
    """Shows a run."""

    def show(self, event: Event) -> None: ...

    def note(self, text: str) -> None:
        """One line that is no event: what is being waited for, what was asked."""
        ...

    def close(self) -> None: ...


def sparkline(values: list[float], width: int = 16) -> str:
    """A curve as blocks, the last `width` values; gaps where a value is not finite."""
    shown = values[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(
        _BARS[int((value - low) / span * (len(_BARS) - 1))] if math.isfinite(value) else " " for value in shown
    )


@dataclass
class _SlotState:
    assignment: Assignment
    curve: list[float] = field(default_factory=list)
    progress: int = 0
    length: int | None = None
    began: float = 0.0


class Scoreboard:
    """What the screen knows of the study: counts, best and baseline, slots, recent endings."""

    def __init__(
        self, record: StudyRecord, history: History, trials: int, slots: int, clock: Callable[[], float]
    ) -> None:
        self.record = record
        self.metric = record.metric["name"]
        self.direction = Direction(record.metric["direction"])
        self.trials = trials
        self.ended = len(history.ended)
        self.clock = clock
        self.began = clock()
        # Its own copy, kept up to date: what has been spent is said of the whole study, earlier runs included.
        self.history = copy.deepcopy(history)
        self.heard: dict[int, float] = {}
        self.rates = rates_of(record)
        self.slots: dict[int, _SlotState | None] = dict.fromkeys(range(slots))
        self.recent: deque[tuple[int, str, str]] = deque(maxlen=_RECENT)
        self.baseline: float | None = None
        self.best: tuple[float, int] | None = None
        self._tradeoff = recorded(record.metric, record.tradeoff)
        self._front: list[pareto.Point] = []
        self.parameters = {trial.number: trial.parameters for trial in history.trials.values()}
        for trial in history.ended:
            if trial.ending is Ending.COMPLETE and trial.value is not None:
                self._completed(trial.number, trial.value)

    def _completed(self, trial: int, value: float) -> bool:
        if trial == 0:
            self.baseline = value
        if self.history.trials[trial].repeat:
            return False
        self._weigh(trial)
        if self.best is None or self.direction.better(value, self.best[0]):
            self.best = (value, trial)
            return True
        return False

    @property
    def front(self) -> int:
        """How many trials are on the front; 0 where there is no trade-off."""
        return len(self._front)

    def _weigh(self, trial: int) -> None:
        point = self._tradeoff.point(self.history.trials[trial].measurements)
        if point is not None:
            points = [*self._front, point]
            self._front = [points[index] for index in pareto.front(points)]

    def slot_of(self, trial: int) -> int | None:
        return next((slot for slot, state in self.slots.items() if state and state.assignment.number == trial), None)

    def add(self, event: Event) -> None:
        here = event.event if isinstance(event, Elsewhere) else event
        self.history.add(json.loads(encode(here, self.clock())))
        match event:
            case Started(assignment, slot):
                self.parameters[assignment.number] = dict(assignment.parameters)
                self.heard[assignment.number] = self.clock()
                self.slots[slot] = _SlotState(assignment, began=self.clock())
            case Progressed(trial, measurement, _, length):
                self.heard[trial] = self.clock()
                if (at := self.slot_of(trial)) is not None and (state := self.slots[at]) is not None:
                    state.curve.append(measurement.metrics.get(self.metric, math.nan))
                    state.progress, state.length = measurement.progress, length
            case Ended(trial, outcome, _, value) | Elsewhere(Ended(trial, outcome, _, value)):
                self.ended += 1
                if outcome.ending is Ending.COMPLETE and value is not None and self._completed(trial, value):
                    text = f"{number(value)}, the best so far" if trial else f"{number(value)}, the baseline"
                else:
                    again = (
                        ", the baseline once more" if self.history.trials[trial].repeat and value is not None else ""
                    )
                    text = outcome.reason or f"{number(value)}{again}"
                self.recent.append((trial, outcome.ending.value, text))
                self._clear(trial)
            case Interrupted(trial, _, setback, _, paused):
                ending, why = ("paused", paused) if paused else ("interrupted", "to be resumed")
                if setback is not None:
                    ending, why = setback.ending.value, f"{setback.reason}; {paused or 'to be tried again'}"
                self.recent.append((trial, ending, why))
                self._clear(trial)
            case Retired(slot):
                self.slots.pop(slot, None)
            case Elsewhere(Started(assignment)):
                self.parameters[assignment.number] = dict(assignment.parameters)
            case Elsewhere(Interrupted(trial, _, setback)) if setback is not None:
                self.recent.append((trial, setback.ending.value, setback.reason))

    def _clear(self, trial: int) -> None:
        if (slot := self.slot_of(trial)) is not None:
            self.slots[slot] = None

    @property
    def silent(self) -> dict[int, float]:
        """Seconds since each running trial was last heard of."""
        running = [state.assignment.number for state in self.slots.values() if state is not None]
        return {trial: self.clock() - self.heard[trial] for trial in running}

    @property
    def spent(self) -> Spent:
        """By the whole study until now, with the trials that run."""
        seconds = sum(trial.seconds for trial in self.history.trials.values()) + sum(self.silent.values())
        return Spent.of(self.history.seconds + self.clock() - self.began, seconds, self.rates)

    @property
    def outlook(self) -> Outlook | None:
        """What is still to come, or None where nothing is known yet."""
        return outlook(self.history, self.trials, len(self.slots), self.silent)

    @property
    def left(self) -> str:
        """The time until the last trial ends, in words; empty where it is not known."""
        rest = self.outlook
        if rest is None or not rest.seconds:
            return ""
        return f"{'at most' if rest.at_most else 'about'} {duration(rest.seconds)} left"

    @property
    def cost(self) -> str:
        """What was spent, and of how much in all, in words."""
        spent, rest = self.spent, self.outlook
        whole = None if rest is None or not rest.seconds else in_all(spent, rest, self.rates)
        of = " of at most " if rest is not None and rest.at_most else " of about "
        text = f"spent {number(spent.gpu_hours, 3)}"
        text += f"{'' if whole is None else of + number(whole.gpu_hours, 3)} {self.rates.unit}"
        if spent.cost is not None:
            text += f", cost {number(spent.cost, 3)}"
            text += "" if whole is None else of + number(whole.cost, 3)
        return text


class LiveView:
    """One screen, redrawn in place."""

    def __init__(self, console: Console, board: Scoreboard) -> None:
        self._board = board
        self._note = ""
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=False)
        self._live.start()

    def show(self, event: Event) -> None:
        self._board.add(event)

    def note(self, text: str) -> None:
        self._note = text

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        board = self._board
        head = Table.grid(expand=True, padding=(0, 2))
        head.add_column(ratio=1)
        head.add_column(justify="right")
        time_text = ", ".join(filter(None, [duration(board.clock() - board.began), board.left]))
        head.add_row(
            ProgressBar(total=board.trials, completed=board.ended),
            f"{board.ended}/{board.trials} trials, {time_text}",
        )
        head.add_row("", Text(board.cost, style="dim"))
        parts: list[RenderableType] = [head, self._score(), Text(), self._slots(), Text(), self._recent()]
        if self._note:
            parts.append(Text(self._note, style="bold magenta"))
        return Panel(Group(*parts), title=f"hpo: {board.record.name}", title_align="left", border_style="dim")

    def _score(self) -> Text:
        board = self._board
        text = Text.assemble(
            f"{board.direction.value} {board.metric}", "    baseline ", (number(board.baseline), "bold")
        )
        if board.best is not None:
            value, trial = board.best
            text.append("    best ")
            text.append(number(value), style="bold green")
            text.append(f" (trial {trial}: {parameters(board.parameters[trial])})")
            if front := board.front:
                text.append(f"    front {front} trial{'s' if front > 1 else ''}", style="bold")
        return text

    def _slots(self) -> Table:
        table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
        table.add_column("slot", width=4)
        table.add_column("trial", width=8)
        table.add_column("progress", width=14)
        table.add_column("curve", width=16)
        table.add_column(self._board.metric, justify="right", width=max(9, len(self._board.metric)))
        table.add_column("parameters", ratio=1, no_wrap=True)
        for slot, state in self._board.slots.items():
            if state is None:
                table.add_row(str(slot), "-")
                continue
            last = state.curve[-1] if state.curve else None
            bar: RenderableType = Text(number(state.progress))
            if state.length:
                bar = ProgressBar(total=state.length, completed=state.progress, width=14)
            label = f"{state.assignment.number}{_kind(state.assignment, (' base', ' repeat', ' random'))}"
            table.add_row(
                str(slot), label, bar, Text(sparkline(state.curve), style="cyan"), number(last),
                parameters(state.assignment.parameters),
            )  # fmt: skip
        return table

    def _recent(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for trial, state, text in self._board.recent:
            table.add_row(f"trial {trial}", Text(state, style=STYLES.get(state, "")), Text(text, style="dim"))
        return table


class PlainView:
    """One line an event, for logs and pipes."""

    def __init__(self, console: Console, board: Scoreboard) -> None:
        self._console = console
        self._board = board

    def show(self, event: Event) -> None:
        board = self._board
        board.add(event)
        match event:
            case Started(assignment, slot, resumed):
                verb = "resumed" if resumed else "started"
                what = _kind(assignment, ("baseline, ", f"baseline with seed {assignment.seed}, ", "random, "))
                self.note(f"trial {assignment.number} {verb} in slot {slot}: {what}{parameters(assignment.parameters)}")
            case Progressed(trial, measurement, seconds, length):
                share = f" ({100 * measurement.progress / length:.0f}%)" if length else ""
                value = number(measurement.metrics.get(board.metric))
                self.note(
                    f"trial {trial} at {measurement.progress:,}{share}: {board.metric} {value}, {duration(seconds)}"
                )
            case Ended(trial, _, seconds, _) | Elsewhere(Ended(trial, _, seconds, _)):
                _, state, text = board.recent[-1]
                state = f"{state} elsewhere" if isinstance(event, Elsewhere) else state
                rest = ", ".join(filter(None, [f"{board.ended}/{board.trials} trials", board.left, board.cost]))
                self.note(f"trial {trial} {state} after {duration(seconds)}: {text}; {rest}")
            case Interrupted(trial, _, setback, divide, paused):
                again = f"again in {divide} parts" if divide > 1 else "again from its last checkpoint"
                why = (
                    f"{setback.ending.value}: {setback.reason}; {paused or again}"
                    if setback
                    else "set aside, to be resumed"
                )
                self.note(f"trial {trial} {why}")
            case Retired(slot, reason):
                self.note(f"slot {slot} is out of service: {reason}")
            case Elsewhere(Interrupted(trial, _, setback)) if setback is not None:
                self.note(f"trial {trial} {setback.ending.value}: {setback.reason}")

    def note(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # `hpo run | head`: the search goes on unseen
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is held."""


def open_view(console: Console, record: StudyRecord, history: History, trials: int, slots: int) -> View:
    """The live screen in a terminal, plain lines elsewhere."""
    board = Scoreboard(record, history, trials, slots, time.monotonic)
    return LiveView(console, board) if console.is_terminal else PlainView(console, board)


def _kind(assignment: Assignment, words: tuple[str, str, str]) -> str:
    """What a trial that is never stopped is called, in words for the baseline, its repeats and random draws."""
    if not assignment.protected:
        return ""
    return words[0 if assignment.number == 0 else 1 if assignment.repeat else 2]
