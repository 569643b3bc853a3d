"""The HTTP API as clients meet it: OpenAI's own client against real servers over tiny models."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import saved_models
import uvicorn
from saved_models import CONTEXT

from hpo.deployment import Deployment
from hpo.endpoint.app import Model, build
from hpo.endpoint.server import is_loopback
from hpo.endpoint.worker import Worker

HPO = str(Path(sys.executable).with_name("hpo"))
KEY = "not-to-be-guessed"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    kinds = {"writer": "language_model", "talker": "dialogue_model", "sorter": "classifier", "turner": "translator"}
    return {name: getattr(saved_models, kind)(root / name) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def served(folders: dict[str, Path]) -> Iterator[Callable[[str], str]]:
    """Starts a server for a model in a thread of this process, once; its address. The sorter asks for a key."""
    running: dict[str, tuple[uvicorn.Server, threading.Thread, Worker, str]] = {}

    def start(name: str) -> str:
        if name not in running:
            worker = Worker()
            model = Model(name, Deployment(name, folders[name], "models.serving").load(), worker, 0)
            app = build(model, key=KEY if name == "sorter" else None, hosts=["127.0.0.1", "localhost"])
            listener = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            running[name] = server, thread, worker, f"http://127.0.0.1:{listener.getsockname()[1]}"
        return running[name][3]

    yield start
    for server, thread, worker, _ in running.values():
        server.should_exit = True
        thread.join()
        worker.close()


@pytest.fixture(scope="module")
def writer(served: Callable[[str], str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served("writer") + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def talker(served: Callable[[str], str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served("talker") + "/v1", api_key="none", max_retries=0) as client:
        yield client


def post(url: str, body: Any, key: str | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **headers}
    if key is not None:
        given["Authorization"] = f"Bearer {key}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, given)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_models_are_the_one_that_is_served(writer: openai.OpenAI) -> None:
    (model,) = writer.models.list()
    assert model.id == "writer"
    assert writer.models.retrieve("writer").model_dump()["max_model_len"] == CONTEXT
    with pytest.raises(openai.NotFoundError, match="'other' does not exist here; this server has 'writer'"):
        writer.completions.create(model="other", prompt="a")


def test_a_completion_counts_its_tokens(writer: openai.OpenAI) -> None:
    answer = writer.completions.create(model="writer", prompt="abc", max_tokens=5, temperature=0)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3
    assert answer.usage.total_tokens == 3 + answer.usage.completion_tokens
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 5)
    several = writer.completions.create(model="writer", prompt=["abc", "abc"], max_tokens=5, temperature=0)
    assert [choice.text for choice in several.choices] == [answer.choices[0].text] * 2


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 1.3, "top_p": 0.9, "seed": 4}])
def test_a_stream_is_the_same_answer_in_pieces(writer: openai.OpenAI, settings: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "writer", "prompt": "abc", "max_tokens": 30, **settings}
    whole = writer.completions.create(**asked)
    chunks = list(writer.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_stop_string_ends_the_answer(writer: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "writer", "prompt": "abc", "max_tokens": 30, "temperature": 1.5, "seed": 1}
    text = writer.completions.create(**asked).choices[0].text
    stop = text[5:7]
    answer = writer.completions.create(**asked, stop=[stop])
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    pieces = [chunk.choices[0].text for chunk in writer.completions.create(**asked, stop=stop, stream=True)]
    assert "".join(pieces) == text[: text.index(stop)]


def test_a_dialogue_is_replied_to_whole_and_in_pieces(talker: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    asked: dict[str, Any] = {"model": "talker", "messages": messages, "temperature": 0}
    answer = talker.chat.completions.create(**asked, max_completion_tokens=6)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    assert answer.usage.prompt_tokens == 1 + 7 + 1 + 1 + 5 + 1 + 1
    chunks = list(talker.chat.completions.create(**asked, max_tokens=6, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(writer: openai.OpenAI, talker: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            writer.completions.create(model="writer", prompt="x" * CONTEXT, stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert f"is {CONTEXT} tokens. However, your prompt has {CONTEXT} tokens" in str(caught.value)
    just = writer.completions.create(model="writer", prompt="x" * (CONTEXT - 1), max_tokens=50)
    assert just.choices[0].finish_reason in ("length", "stop")
    assert just.usage is not None
    assert just.usage.completion_tokens == 1
    with pytest.raises(openai.BadRequestError, match="context length"):
        talker.chat.completions.create(model="talker", messages=[{"role": "user", "content": "x" * CONTEXT}])


def test_each_kind_of_model_says_which_route_is_its_own(
    writer: openai.OpenAI, talker: openai.OpenAI, served: Callable[[str], str]
) -> None:
    with pytest.raises(openai.BadRequestError, match=r"plain language model.*Use POST /v1/completions"):
        writer.chat.completions.create(model="writer", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.BadRequestError, match="Use POST /v1/chat/completions"):
        talker.completions.create(model="talker", prompt="a")
    for path, body in {
        "completions": {"prompt": "a"},
        "chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    }.items():
        status, answer = post(f"{served('turner')}/v1/{path}", body)
        assert status == 400
        assert "turner is a translation model, which does not write freely. Use POST /v1/predict." in str(answer)
    assert post(f"{served('writer')}/v1/predict", {"inputs": ["a"]})[0] == 400


def test_texts_are_translated_and_classified(served: Callable[[str], str]) -> None:
    status, answer = post(f"{served('turner')}/v1/predict", {"inputs": "guten Tag"})
    assert status == 200
    assert [set(row) for row in answer["predictions"]] == [{"source", "translation"}]
    status, answer = post(f"{served('sorter')}/v1/predict", {"inputs": ["a", "b"]}, KEY)
    assert [row["text"] for row in answer["predictions"]] == ["a", "b"]
    assert sum(answer["predictions"][0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("key", [None, "wrong", KEY + "x", "ключ"])
def test_without_the_key_there_is_no_answer_but_health(served: Callable[[str], str], key: str | None) -> None:
    url = served("sorter")
    encoded = None if key is None else key.encode().decode("latin-1")
    status, answer = post(f"{url}/v1/predict", {"inputs": ["a"]}, encoded)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert KEY not in str(answer)
    with urllib.request.urlopen(f"{url}/health") as health:
        assert json.load(health) == {"status": "ok"}
    with pytest.raises(openai.AuthenticationError), openai.OpenAI(base_url=f"{url}/v1", api_key="wrong") as client:
        client.models.list()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"temperature": 3}, "temperature: Input should be less than or equal to 2"),
        ({"top_p": 1.1}, "top_p: "),
        ({"n": 2}, "n: Input should be 1"),
        ({"logprobs": 3}, "logprobs: "),
        ({"frequency_penalty": 0.5}, "frequency_penalty: "),
        ({"temprature": 1}, "temprature: no such argument here"),
        ({"prompt": 3}, "prompt: "),
        ({"prompt": "\ud800"}, "prompt: Value error, must be valid Unicode"),
        ({"prompt": None}, "prompt: "),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    served: Callable[[str], str], change: dict[str, Any], message: str
) -> None:
    status, answer = post(f"{served('writer')}/v1/completions", {"prompt": "a", **change})
    assert status == 400
    assert answer["error"]["message"].startswith(message)
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == next(iter(change))


def test_broken_requests_are_answered_in_the_same_format(served: Callable[[str], str]) -> None:
    url = served("writer")
    assert post(f"{url}/v1/completions", b"{")[1]["error"]["message"] == "The body is not valid JSON."
    assert post(f"{url}/v1/completions", {})[1]["error"]["message"] == "prompt: is required"
    assert post(f"{url}/v1/nothing", {})[0] == 404
    assert post(f"{url}/health", {})[1]["error"]["message"] == "POST /health: Method Not Allowed"


def test_a_web_page_under_another_name_is_turned_away(served: Callable[[str], str]) -> None:
    request = urllib.request.Request(served("writer") + "/v1/models", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        urllib.request.urlopen(request)
    caught.value.close()


def test_many_at_once_get_what_each_would_get_alone(writer: openai.OpenAI) -> None:
    def ask(seed: int) -> str:
        asked: dict[str, Any] = {"model": "writer", "prompt": "abc", "max_tokens": 20, "temperature": 1, "seed": seed}
        if seed % 2:
            return writer.completions.create(**asked).choices[0].text
        return "".join(chunk.choices[0].text for chunk in writer.completions.create(**asked, stream=True))

    alone = [ask(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone
    assert len(set(alone)) > 4


def test_who_hangs_up_does_not_hold_up_the_others(writer: openai.OpenAI) -> None:
    for _ in range(3):
        stream = writer.completions.create(model="writer", prompt="a", max_tokens=60, stream=True)
        next(iter(stream))
        stream.close()
    begun = time.monotonic()
    writer.completions.create(model="writer", prompt="a", max_tokens=1)
    assert time.monotonic() - begun < 10


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([HPO, "serve", *arguments], env=settings, capture_output=True, text=True, check=False)


def test_the_command_says_when_it_is_ready_and_ends_on_ctrl_c(folders: dict[str, Path]) -> None:
    arguments = [HPO, "serve", str(folders["sorter"]), "--port", "0", "--name", "mine"]
    environment = {**os.environ, "HPO_API_KEY": KEY}
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = ""
        while "Try it" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        found = re.search(
            r"mine \(classification, context 64 tokens\) is ready after .* at (http://127\.0\.0\.1:\d+)", output
        )
        assert found, output
        assert "/v1/predict" in output
        assert post(f"{found[1]}/v1/predict", {"model": "mine", "inputs": ["a"]}, KEY)[0] == 200
        taken = command(str(folders["sorter"]), "--port", found[1].rpartition(":")[2])
        assert taken.returncode == 1
        assert len(taken.stderr.splitlines()) == 1
        assert "is in use by another program. Choose another:  --port" in taken.stderr
        process.send_signal(signal.SIGINT)
        output += process.stdout.read()
    assert process.returncode == 0
    assert output.splitlines()[-1] == "stopped"
    assert KEY not in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--host", "0.0.0.0"], {}, "others can reach this address, so a key is needed"),
        (["--host", "0.0.0.0"], {"HPO_API_KEY": " "}, "the key is empty"),
        (["--host", "no.such.host.invalid"], {"HPO_API_KEY": "k"}, "no such address"),
        (["--host", "192.0.2.1"], {"HPO_API_KEY": "k"}, "no address of this machine"),
    ],
)
def test_a_server_that_must_not_start_is_refused_in_one_line(
    folders: dict[str, Path], arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = command(str(folders["writer"]), "--port", "0", *arguments, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.0.1", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))
