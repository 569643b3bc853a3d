"""Talking with a model: what is remembered, what reaches the terminal, how it ends. Real terminals where they matter."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import saved_models

from hpo import conversation
from hpo.conversation import Conversation, converse, visible
from hpo.errors import UserError

HPO = str(Path(sys.executable).with_name("hpo"))


class Echo:
    """A model that repeats what it read, in two pieces. It reads at most four messages."""

    task = "echoing"
    writes = True
    context = 4

    def __init__(self, *, converses: bool) -> None:
        self.converses = converses
        self.read: list[Any] = []

    def fit(self, prompt: Any, *, new_tokens: int | None = None) -> list[Any]:
        if prompt[-1]["content"] == "too long":
            raise ValueError("messages: at most 4 tokens, got 9.")
        return list(prompt[-4:])

    def write(self, prompt: Any, *, on_text: Callable[[str], None], **sampling: Any) -> Any:
        self.read.append(prompt)
        last = prompt[-1]["content"] if self.converses else prompt
        for piece in (f"<{last}", ">"):
            on_text(piece)


def talk(model: Any, *lines: str, **settings: Any) -> tuple[Conversation, list[str]]:
    said: list[str] = []
    talked = Conversation(model, {}, said.append, **settings)
    for line in lines:
        talked.answer(line, lambda _: None)
    return talked, said


def test_a_dialogue_is_remembered_with_what_the_model_said() -> None:
    model = Echo(converses=True)
    talk(model, "a", "b", system="be kind")
    assert [message["content"] for message in model.read[1]] == ["be kind", "a", "<a>", "b"]
    assert [message["role"] for message in model.read[1]] == ["system", "user", "assistant", "user"]


def test_a_dialogue_that_grows_too_long_says_so_once() -> None:
    model = Echo(converses=True)
    _, said = talk(model, *"abcdef")
    assert len(model.read[-1]) == 4
    assert len(said) == 1
    assert "the oldest exchanges are left out" in said[0]


def test_a_text_is_begun_by_a_line_and_gone_on_with_by_enter_alone() -> None:
    model = Echo(converses=False)
    talk(model, "once", "", "anew")
    assert model.read == ["once", "once<once>", "anew"]


def test_what_was_shown_before_an_answer_was_stopped_is_remembered() -> None:
    def stop(piece: str) -> None:
        if piece == ">":
            raise KeyboardInterrupt

    model = Echo(converses=True)
    talked, _ = talk(model)
    with pytest.raises(KeyboardInterrupt):
        talked.answer("a", stop)
    assert [message["content"] for message in talked.messages] == ["a", "<a>"]


def test_a_system_message_is_only_for_dialogues() -> None:
    with pytest.raises(UserError, match="plain language model"):
        talk(Echo(converses=False), system="be kind")


def test_no_control_character_reaches_the_terminal() -> None:
    assert visible("a\tb\nc") == "a\tb\nc"
    dangerous = "\x1b]0;title\x07\x1b[2J\r\x08\x7f\x9b31m\u202e\u2066"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]", visible(dangerous))
    assert "]0;title" in visible(dangerous)


class Lines(io.StringIO):
    def isatty(self) -> bool:
        return False


def test_lines_are_read_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conversation.sys, "stdin", Lines("a\n\n/new\n[bold]b\ntoo long\n/exit\nnever\n"))
    model = Echo(converses=True)
    said: list[str] = []
    converse(Conversation(model, {}, said.append))
    assert capsys.readouterr().out == "<a>\n<[bold]b>\n"
    assert len(model.read[1]) == 1
    assert said == ["(begun anew)", "messages: at most 4 tokens, got 9."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_models.dialogue_model(tmp_path_factory.mktemp("model"))


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [HPO, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # so that Ctrl-C at the terminal is a signal to the command
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.seen = ""

    def until(self, words: str, seconds: float = 60) -> str:
        """What it shows until it shows `words`, from where the last call ended."""
        deadline = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < deadline, f"never said {words!r}: {self.seen!r}"
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.ours, 4096).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"ended before it said {words!r}: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(words)
        return before

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_
    for one in opened:
        one.end()


def test_in_a_terminal_ctrl_c_stops_the_answer_and_at_the_prompt_the_command(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    folder = saved_models.language_model(tmp_path / "model")
    opened = terminal("chat", str(folder), "--max-new-tokens", "1000000", "--temperature", "0")
    opened.until("Enter alone goes on with it")
    opened.until("> ")
    opened.type("once [red]upon\n")
    opened.until("once [red]upon")
    time.sleep(0.5)
    opened.type("\x03")
    answer = opened.until("[stopped]")
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", answer.replace("^C", ""))
    opened.until("> ")
    opened.type("/new\n")
    opened.until("(begun anew)")
    opened.until("> ")
    time.sleep(0.5)  # CPython's `input` overlooks, until the next key, a signal between its prompt and its wait
    opened.type("\x03")
    assert opened.process.wait(20) == 0


def test_a_model_that_does_not_write_is_refused_at_once(tmp_path: Path) -> None:
    folder = saved_models.classifier(tmp_path / "sorter")
    done = subprocess.run([HPO, "chat", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sorter is a classification model, which does not write freely; use `hpo predict`." in done.stderr


def test_answers_alone_go_to_standard_output(folder: Path) -> None:
    done = subprocess.run(
        [HPO, "chat", str(folder), "--max-new-tokens", "5", "--seed", "1"],
        input=b"hi\n\xff\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"context 64 tokens" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"context" not in done.stdout
