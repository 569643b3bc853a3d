"""The port, the key, and the process that answers until it is stopped."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import time
from collections.abc import Callable, Iterator

from hpo.deployment import Deployment, Served
from hpo.errors import HpoError, UserError
from hpo.wording import duration

_BACKLOG = 128
_CLOSING_SECONDS = 3
LOOPBACK_NAMES = ["127.0.0.1", "localhost"]


def serve(
    deployment: Deployment, *, host: str, port: int, key: str | None, name: str | None, say: Callable[[str], None]
) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Args:
        port: 0 takes a free one.
        key: what clients must send; needed where others than this machine can reach it. Never shown or logged.
        name: what clients call the model; the deployment's own name by default.
        say: told each line for the user.

    Raises:
        UserError: no key where one is needed, an address that is none, a model that cannot be served.
        HpoError: the port is taken.
    """
    local = is_loopback(host)
    if key is not None and not (key := key.strip()):
        raise UserError("the key is empty. Set HPO_API_KEY to something that cannot be guessed, or leave --key out.")
    if key is None and not local:
        raise UserError(
            f"--host {host}: others can reach this address, so a key is needed. Set HPO_API_KEY (or --key); "
            "--host 127.0.0.1 needs none."
        )
    deployment.describe()  # what can be refused quickly is refused before the libraries are imported
    with _listening(host, port) as listener, _until_stopped():
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        # Only IPv4 names: starlette cuts a host at its first colon.
        hosts = [*LOOPBACK_NAMES, host] if local and ":" not in host else None
        _answer(deployment, listener, name or deployment.name, url, key, hosts, say)
    say("stopped")


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a server ends; uvicorn raises either anew once it has closed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(
    deployment: Deployment,
    listener: socket.socket,
    name: str,
    url: str,
    key: str | None,
    hosts: list[str] | None,
    say: Callable[[str], None],
) -> None:
    """Load the model and answer at a socket."""
    begun = time.monotonic()
    say(f"loading {name} from {deployment.folder}")
    served = deployment.load()
    import uvicorn

    from hpo.endpoint.app import Model, build
    from hpo.endpoint.worker import Worker

    worker = Worker()
    app = build(Model(name, served, worker, int(time.time())), key=key, hosts=hosts)
    settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_CLOSING_SECONDS)
    what = f"{name} ({served.task}, context {served.context:,} tokens)"
    say(f"{what} is ready after {duration(time.monotonic() - begun)} at {url}")
    say(example(url, name, path_of(served), with_key=key is not None))
    try:
        uvicorn.Server(settings).run(sockets=[listener])
    finally:
        worker.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def path_of(served: Served) -> str:
    """The route that a model answers."""
    if not served.writes:
        return "/v1/predict"
    return "/v1/chat/completions" if served.converses else "/v1/completions"


def example(url: str, name: str, path: str, *, with_key: bool) -> str:
    """A command that tries it."""
    body = {
        "/v1/predict": '"inputs": ["a text"]',
        "/v1/completions": '"prompt": "Once", "max_tokens": 40',
        "/v1/chat/completions": '"messages": [{"role": "user", "content": "Hello"}]',
    }[path]
    key = ' -H "Authorization: Bearer $HPO_API_KEY"' if with_key else ""
    return (
        f"Try it:  curl {url}{path}{key} -H 'Content-Type: application/json' "
        f"""-d '{{"model": "{name}", {body}}}'   (Ctrl-C ends it)"""
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens: who connects from now on waits until the model is loaded.

    Raises:
        HpoError: the port is taken, or not ours to take.
        UserError: the address is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UserError(f"--host {host}: no such address ({error.strerror}).") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise HpoError(f"port {port} is in use by another program. Choose another:  --port {port + 1}") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {host}: no address of this machine.") from None
        raise HpoError(f"cannot listen at {host}, port {port}: {error.strerror}.") from None
    return listener
