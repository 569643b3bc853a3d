"""The routes: what each asks the model, and how each mistake is answered."""

# No `from __future__ import annotations`: FastAPI reads the routes' annotations.

import contextlib
import hmac
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from hpo.deployment import Served, Written
from hpo.endpoint.answers import Answer, Refused, error, event
from hpo.endpoint.requests import Chat, Completion, Prediction, Writing
from hpo.endpoint.worker import OnText, Worker

Task = Callable[[OnText], Written]
_BATCH = 16


class Model:
    """The served model under its name, asked through the worker."""

    def __init__(self, name: str, served: Served, worker: Worker, created: int) -> None:
        """created: when it was started, in seconds since the epoch."""
        self.name = name
        self.served = served
        self.worker = worker
        self.created = created

    def card(self) -> dict[str, Any]:
        own = {"task": self.served.task, "max_model_len": self.served.context}
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "hpo", **own}

    def check_name(self, name: str | None) -> None:
        if name is not None and name != self.name:
            text = f"The model {name!r} does not exist here; this server has {self.name!r}."
            raise Refused(HTTPStatus.NOT_FOUND, text, code="model_not_found", param="model")

    def check_writes(self) -> None:
        if not self.served.writes:
            text = f"{self.name} is a {self.served.task} model, which does not write freely. Use POST /v1/predict."
            raise Refused(HTTPStatus.BAD_REQUEST, text, code="unsupported_endpoint")

    async def check_length(self, prompt: Any, param: str) -> None:
        """A prompt must leave room for one token."""
        with _refusing():
            tokens = await self.worker.run(partial(self.served.count, prompt))
        if tokens + 1 > self.served.context:
            text = (
                f"This model's maximum context length is {self.served.context} tokens. However, your prompt has "
                f"{tokens} tokens, and the answer needs at least 1. Please shorten the prompt."
            )
            raise Refused(HTTPStatus.BAD_REQUEST, text, code="context_length_exceeded", param=param)

    async def answer(self, prompts: list[Any], request: Writing, *, chat: bool) -> Response:
        """Write after each prompt, whole or as a stream."""
        for prompt in prompts:
            await self.check_length(prompt, "messages" if chat else "prompt")
        tasks: list[Task] = [partial(self._write, prompt, request.sampling()) for prompt in prompts]
        options = request.stream_options
        answer = Answer(self.name, chat, with_usage=options is not None and options.include_usage)
        if request.stream:
            return StreamingResponse(self._stream(tasks, answer), media_type="text/event-stream")
        with _refusing():
            return JSONResponse(answer.whole([await self.worker.whole(task) for task in tasks]))

    async def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """A row of results for each text."""
        with _refusing():
            return await self.worker.run(lambda: list(self.served.rows(texts, batch_size=_BATCH)))

    def _write(self, prompt: Any, sampling: dict[str, Any], on_text: OnText) -> Written:
        return self.served.write(prompt, on_text=on_text, **sampling)

    async def _stream(self, tasks: list[Task], answer: Answer) -> AsyncIterator[str]:
        written: list[Written] = []

        def write(task: Task, tell: OnText) -> None:
            written.append(task(tell))

        for line in answer.begins():
            yield line
        try:
            for index, task in enumerate(tasks):
                async for text in self.worker.pieces(partial(write, task)):
                    yield answer.piece(index, text)
                yield answer.choice_ends(index, written[-1].finish)
        except Exception as failure:
            # The status has been sent: all that can be said now is an event, before the defect is reported.
            yield event(error(f"the answer was broken off: {type(failure).__name__}", status=500))
            raise
        for line in answer.ends(written):
            yield line


def build(model: Model, *, key: str | None, hosts: list[str] | None) -> FastAPI:
    """The application.

    Args:
        key: what clients must send as bearer token; None asks for none.
        hosts: names under which it may be called. None: any. On loopback it keeps web pages that a browser on this
            machine shows from reaching it under a name of theirs.
    """
    app = FastAPI(title="hpo", docs_url=None, redoc_url=None, openapi_url=None)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    _answer_mistakes(app)
    protected = [Depends(partial(_check_key, key))]

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=protected)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model.card()]}

    @app.get("/v1/models/{name:path}", dependencies=protected)
    async def one_model(name: str) -> dict[str, Any]:
        model.check_name(name)
        return model.card()

    @app.post("/v1/completions", dependencies=protected)
    async def completions(request: Completion) -> Response:
        model.check_name(request.model)
        model.check_writes()
        if model.served.converses:
            text = f"{model.name} replies to messages. Use POST /v1/chat/completions."
            raise Refused(HTTPStatus.BAD_REQUEST, text, code="unsupported_endpoint")
        prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        return await model.answer(list(prompts), request, chat=False)

    @app.post("/v1/chat/completions", dependencies=protected)
    async def chat_completions(request: Chat) -> Response:
        model.check_name(request.model)
        model.check_writes()
        if not model.served.converses:
            text = (
                f"{model.name} is a plain language model, without a chat template: it continues a text and knows no "
                "messages. Use POST /v1/completions."
            )
            raise Refused(HTTPStatus.BAD_REQUEST, text, code="unsupported_endpoint")
        return await model.answer([[message.plain() for message in request.messages]], request, chat=True)

    @app.post("/v1/predict", dependencies=protected)
    async def predict(request: Prediction) -> Response:
        model.check_name(request.model)
        if model.served.writes:
            path = "/v1/chat/completions" if model.served.converses else "/v1/completions"
            text = f"{model.name} is a {model.served.task} model, which writes. Use POST {path}."
            raise Refused(HTTPStatus.BAD_REQUEST, text, code="unsupported_endpoint")
        rows = await model.predict(request.texts)
        return JSONResponse({"object": "list", "model": model.name, "predictions": rows})

    return app


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """A model says in words what it cannot take."""
    try:
        yield
    except ValueError as mistake:
        raise Refused(HTTPStatus.BAD_REQUEST, str(mistake)) from mistake


def _check_key(key: str | None, request: Request) -> None:
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared in a time that says nothing of how much of it was right.
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), key.encode()):
        text = "This server asks for a key: send it as `Authorization: Bearer KEY`."
        raise Refused(HTTPStatus.UNAUTHORIZED, text, code="invalid_api_key")


def _answer_mistakes(app: FastAPI) -> None:
    """Every error in OpenAI's format; what clients show of it is its message."""

    @app.exception_handler(Refused)
    async def refused(_: Request, mistake: Refused) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if mistake.status == HTTPStatus.UNAUTHORIZED else None
        return JSONResponse(mistake.content(), mistake.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, mistake: RequestValidationError) -> JSONResponse:
        # A union's branches each complain; the first complaint is enough.
        first = mistake.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse(error("The body is not valid JSON.", status=400), 400)
        # What is no name is a branch of a type ("list[str]"), which says nothing to a client.
        place = [str(part) for part in first["loc"][1:] if isinstance(part, int) or part.isidentifier()]
        param = next(iter(place), None)
        text = first["msg"]
        if first["type"] == "extra_forbidden":
            text = "no such argument here"
        elif first["type"] == "missing":
            text = "is required"
        return JSONResponse(error(f"{'.'.join(place) or 'body'}: {text}", status=400, param=param), 400)

    @app.exception_handler(HTTPException)
    async def http(request: Request, mistake: HTTPException) -> JSONResponse:
        text = f"{request.method} {request.url.path}: {mistake.detail}"
        return JSONResponse(error(text, status=mistake.status_code), mistake.status_code, mistake.headers)

    @app.exception_handler(Exception)
    async def defect(_: Request, mistake: Exception) -> JSONResponse:
        return JSONResponse(error("The server failed; its own output says why.", status=500), 500)
