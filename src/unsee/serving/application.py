"""The web application: one page, its style and script, and one question at a time.

Nothing of a request is written to disk or logged. Questions are JSON, which pages of other origins
cannot send without being asked first, and requests for another host are refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import anyio
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from unsee.errors import ConfigError, DataError, UnseeError
from unsee.serving.comparing import MAX_QUESTION, MAX_UPLOAD, Comparer

LOGGER = logging.getLogger("unsee")

# A picture in base64, and a question whose every character is escaped.
MAX_BODY = MAX_UPLOAD * 4 // 3 + 12 * MAX_QUESTION + 1000

# Questions that wait for the one that is being answered.
MAX_WAITING = 8

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; img-src data: blob:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Handler = Callable[[Request], Awaitable[Response]]


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def make_app(
    comparer: Comparer, model: str, patches: Sequence[str], hosts: Sequence[str]
) -> ASGIApp:
    """The application.

    Args:
        comparer: Answers the questions.
        model: The model's name on the page.
        patches: The patches' names on the page.
        hosts: Names and addresses that a browser may ask for; IP addresses are always allowed
            where one of these is not a loopback address.
    """
    page = _page(comparer, model, patches)
    own = files("unsee.serving")
    style = (files("unsee.report") / "style.css").read_text("utf-8")
    style += (own / "serve.css").read_text("utf-8")
    script = (own / "serve.js").read_text("utf-8")

    def static(content: str, kind: str) -> Handler:
        async def answer(_: Request) -> Response:
            return Response(content, media_type=kind, headers=HEADERS)

        return answer

    routes = [
        Route("/", static(page, "text/html")),
        Route("/serve.css", static(style, "text/css")),
        Route("/serve.js", static(script, "text/javascript")),
        Route("/ask", _Asking(comparer), methods=["POST"]),
    ]
    return _HostCheck(Starlette(routes=routes), hosts)


def _page(comparer: Comparer, model: str, patches: Sequence[str]) -> str:
    environment = Environment(
        loader=PackageLoader("unsee.serving", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        model=model,
        patches=patches,
        people=[] if comparer.gallery is None else comparer.gallery.people,
        max_question=MAX_QUESTION,
        max_upload=MAX_UPLOAD,
    )


class _Asking:
    """The handler of questions: one is answered at a time, a few wait, others are refused."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer
        self._lock = anyio.Lock()
        self._pending = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            _refuse_other_origin(request)
            picture, question = _parse(await _body(request))
            if self._pending > MAX_WAITING:
                raise _Refused(503, "other questions are waiting for the model. Try again shortly.")
            self._pending += 1
            try:
                async with self._lock:
                    found = await anyio.to_thread.run_sync(self._comparer.ask, picture, question)
            finally:
                self._pending -= 1
            return JSONResponse(asdict(found), headers=HEADERS)
        except _Refused as refused:
            return _error(refused.status, refused.message)
        except ClientDisconnect:
            return _error(400, "the request was broken off.")
        except (ConfigError, DataError) as error:
            return _error(400, str(error))
        except UnseeError as error:
            return _error(500, str(error))
        except Exception as error:
            # The message could hold parts of the request, so the log names the kind alone.
            LOGGER.warning(f"a question could not be answered ({type(error).__name__}).")
            return _error(
                500, f"the model could not answer ({type(error).__name__}). Try another picture."
            )


def _refuse_other_origin(request: Request) -> None:
    """Refuses questions that a page of another origin sends."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise _Refused(403, "questions are taken from this page alone.")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "send JSON with the keys picture and question.")


async def _body(request: Request) -> bytes:
    """The body, read up to the limit."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise _Refused(413, _too_large())
    return bytes(content)


def _too_large() -> str:
    limit = f"{MAX_UPLOAD // 1_000_000} MB"
    return f"the picture file is too large: at most {limit} are taken. Scale it down."


def _parse(body: bytes) -> tuple[bytes, str]:
    """Picture and question of a request."""
    try:
        content: Any = json.loads(body)
        if not isinstance(content, Mapping):
            raise ValueError
        picture, question = content["picture"], content["question"]
        if not isinstance(picture, str) or not isinstance(question, str):
            raise ValueError
        # Half a surrogate pair is text for JSON, and none for a tokenizer.
        question = question.encode("utf-8", "replace").decode()
        encoded = base64.b64decode(picture, validate=True)
    except (ValueError, KeyError, RecursionError, binascii.Error) as error:
        raise _Refused(
            400, "send JSON with the keys picture (base64) and question (text)."
        ) from error
    if len(encoded) > MAX_UPLOAD:
        raise _Refused(413, _too_large())
    return encoded, question


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers=HEADERS)


class _HostCheck:
    """Refuses requests whose Host header is not this server's: DNS rebinding uses another name."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._names = {host.lower() for host in hosts}
        self._any_address = not all(is_loopback(host) for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is allowed."""
        if scope["type"] == "http" and not self._allows(dict(scope["headers"]).get(b"host", b"")):
            refusal = PlainTextResponse(
                "unsee: this host name is not served. Open the address that the command printed.",
                status_code=421,
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allows(self, header: bytes) -> bool:
        try:
            host = (urlsplit(f"//{header.decode('ascii')}").hostname or "").lower()
        except ValueError:
            return False
        return host in self._names or (self._any_address and _is_address(host))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, reached through the loopback interface alone."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
