"""A conversation with a model in the terminal: a prompt, the answer as it is written, what is remembered.

Text is shown as text: nothing in it is markup, and no control character of it reaches the terminal.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hpo.deployment import Served
from hpo.errors import UserError

# Control characters but line feed and tab, and the marks that turn the direction of what follows.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STAND_IN = "\N{REPLACEMENT CHARACTER}"
_PROMPT = "> "


@dataclass
class Conversation:
    """What was said, and how the model answers.

    Attributes:
        served: a model that writes.
        system: what a dialogue begins with.
        sampling: as `Served.write` takes it.
        say: told each line that is no answer.
    """

    served: Served
    sampling: dict[str, Any]
    say: Callable[[str], None]
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    text: str = ""
    has_told_of_limit: bool = False

    def __post_init__(self) -> None:
        if self.system is not None and not self.served.converses:
            raise UserError("--system: this is a plain language model, which continues a text and knows no roles.")
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.text = ""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def answer(self, said: str, show: Callable[[str], None]) -> None:
        """Answer a line, telling each piece to `show`. What was shown is remembered even if it is broken off.

        Raises:
            ValueError: the model cannot take it; it is forgotten.
            KeyboardInterrupt: from `show` or the user.
        """
        if self.served.converses:
            self._reply(said, show)
        else:
            self._continue(said, show)

    def _reply(self, said: str, show: Callable[[str], None]) -> None:
        asked = [*self.messages, {"role": "user", "content": said}]
        fitting = self.served.fit(asked, new_tokens=self.sampling.get("max_new_tokens"))
        if len(fitting) < len(asked) and not self.has_told_of_limit:
            self.has_told_of_limit = True
            self.say(f"(longer than the model's {self.served.context:,} tokens: the oldest exchanges are left out)")
        with _collected(show) as (listen, pieces):
            try:
                self.served.write(fitting, on_text=listen, **self.sampling)
            except KeyboardInterrupt:
                self.messages = [*fitting, {"role": "assistant", "content": "".join(pieces)}]
                raise
        self.messages = [*fitting, {"role": "assistant", "content": "".join(pieces)}]

    def _continue(self, said: str, show: Callable[[str], None]) -> None:
        """A line begins a text; an empty one goes on with the text there is."""
        text = said or self.text
        with _collected(show) as (listen, pieces):
            try:
                self.served.write(text, on_text=listen, beyond=True, **self.sampling)
            finally:
                self.text = text + "".join(pieces)


@contextlib.contextmanager
def _collected(show: Callable[[str], None]) -> Iterator[tuple[Callable[[str], None], list[str]]]:
    pieces: list[str] = []

    def listen(piece: str) -> None:
        pieces.append(piece)
        show(piece)

    yield listen, pieces


def visible(text: str) -> str:
    """A model's text as a terminal may get it."""
    return _UNSEEN.sub(_STAND_IN, text)


def greeting(conversation: Conversation, name: str) -> str:
    """What a person is told first."""
    served = conversation.served
    how = "" if served.converses else " A line begins a text, Enter alone goes on with it."
    return (
        f"{name} ({served.task}, context {served.context:,} tokens).{how} /new begins anew, /exit or Ctrl-D ends, "
        "Ctrl-C stops an answer."
    )


def converse(conversation: Conversation) -> None:
    """Read lines until /exit, Ctrl-D or Ctrl-C at the prompt; without a terminal, until standard input ends."""
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (its import gives `input` editing and a history)
    for line in _lines(interactive):
        if line == "/exit":
            return
        if line == "/new":
            conversation.forget()
            conversation.say("(begun anew)")
        elif line or (not conversation.served.converses and conversation.text):
            _answer(conversation, line)


def _lines(interactive: bool) -> Iterator[str]:
    if not interactive:
        for line in sys.stdin:
            yield _mended(line.rstrip("\r\n"))
        return
    while True:
        try:
            yield _mended(input(_PROMPT).strip())
        except (EOFError, KeyboardInterrupt):
            print_piece("\n")
            return


def _answer(conversation: Conversation, line: str) -> None:
    try:
        with _interrupts() as check:

            def show(piece: str) -> None:
                print_piece(piece)
                check()

            conversation.answer(line, show)
    except KeyboardInterrupt:
        print_piece(" [stopped]")
    except ValueError as error:
        conversation.say(visible(str(error)))
        return
    print_piece("\n")


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Have Ctrl-C noted, and raised where the model's pieces of text are shown, by what this yields; twice: at once.

    Raised wherever it happens to arrive, it was seen to be lost inside the libraries that compute the answer.
    """
    asked = False

    def note(number: int, frame: types.FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, before)


def print_piece(text: str) -> None:
    """A piece of text on standard output, at once; what its encoding lacks becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(visible(text).encode(encoding, errors="replace").decode(encoding))
    sys.stdout.flush()


def _mended(line: str) -> str:
    """A line without the lone surrogates that stand for undecodable bytes."""
    return line.encode("utf-8", errors="replace").decode("utf-8")
