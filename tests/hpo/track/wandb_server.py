"""As much of a W&B server as the library needs to believe in one, on this machine."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Keeps what it is sent as a W&B server does: rows by their offset, so that the same offset again replaces."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = False
        self.loses = 0  # so many of the next uploads of rows are answered with an error
        self.upserts: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[int, dict[str, Any]]] = {}
        self.closed: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def history(self, run_id: str) -> list[dict[str, Any]]:
        rows = self.rows.get(run_id, {})
        assert sorted(rows) == list(range(len(rows)))
        return [rows[offset] for offset in sorted(rows)]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refuses:
            self._answer({"errors": [{"message": "user is not logged in"}]}, 401)
        elif self.path == "/graphql":
            self._graphql(json.loads(body))
        elif self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], json.loads(body))
        else:
            self._answer({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({})

    def _graphql(self, asked: dict[str, Any]) -> None:
        told = asked.get("variables") or {}
        if asked.get("operationName") == "UpsertBucket":
            run = self.server.upserts.setdefault(told["name"], {})
            run |= {name: value for name, value in told.items() if value is not None}
            project = {"id": "p", "name": told.get("project") or "", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": told["name"], "name": told["name"], "displayName": run.get("displayName"), "config": "{}"}
            self._answer({"data": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}})
        elif asked.get("operationName") == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.server.address}/{name}"} for name in told["files"]]
            self._answer({"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}})
        elif asked.get("operationName") == "Viewer":
            me = {"id": "u", "flags": "{}", "entity": "me", "username": "me", "teams": {"edges": []}, "email": ""}
            self._answer({"data": {"viewer": me}})
        else:
            self._answer({"errors": [{"message": "not here"}]})

    def _stream(self, run_id: str, body: dict[str, Any]) -> None:
        if self.server.loses:
            self.server.loses -= 1
            self._answer({}, 404)
            return
        sent = body.get("files", {}).get("wandb-history.jsonl")
        if sent:
            rows = self.server.rows.setdefault(run_id, {})
            rows |= {sent["offset"] + index: json.loads(text) for index, text in enumerate(sent["content"])}
        if body.get("complete"):
            self.server.closed[run_id] = body["exitcode"]
        self._answer({})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
