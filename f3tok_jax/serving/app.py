# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The routes of the page: bodies are read within limits, and the model is asked in turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
import contextlib
import errno
import json
from typing import Any

from starlette import applications
from starlette import concurrency
from starlette import exceptions
from starlette import requests
from starlette import responses
from starlette import routing

from data_pipelines import command
from data_pipelines.records import atomic
from f3tok_jax.runs import typed_json
from f3tok_jax.serving import answers as answers_lib
from f3tok_jax.serving import page

_BODY_SECONDS = 60.0  # in which a body must have come
_JSON_BYTES = 2**16  # of a text with its options


class _Turns:
    """One request of the model at a time; the others wait, so many at most."""

    def __init__(self, most: int):
        self._lock, self._most, self._here = asyncio.Lock(), most, 0

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among those who wait, to be had before a body takes memory.

        Raises:
            HTTPException: where there is none.
        """
        if self._here > self._most:
            raise exceptions.HTTPException(
                503,
                f"at most {self._most} may wait for the model, and they do: try again",
                {"retry-after": "5"},
            )
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    async def take(
        self, request: requests.Request, work: Callable[..., Any], *given: Any, **options: Any
    ) -> Any:
        """Does blocking work in a thread, when it is its turn.

        Args:
            request: whose body was read.
            work: the function.
            *given: to it.
            **options: to it.

        Raises:
            HTTPException: where whoever asked has gone; nobody is told.
        """
        async with self._lock:
            if await request.is_disconnected():
                raise exceptions.HTTPException(400, "an answer must be waited for")
            return await concurrency.run_in_threadpool(work, *given, **options)


class App:
    """The application of a run; see Starlette for what its methods take and give."""

    def __init__(self, answers: answers_lib.Answers):
        self._answers, self._limits = answers, answers.limits
        self._turns = _Turns(answers.limits.waiting)
        self._model = answers.model()
        self._page = page.render(self._model)

    def starlette(self) -> applications.Starlette:
        """The ASGI application."""
        get = [
            routing.Route("/", self._show, methods=["GET"]),
            routing.Route("/api/model", self._describe, methods=["GET"]),
            *(routing.Route(f"/{name}", self._file, methods=["GET"]) for name in page.FILES),
        ]
        post = [
            routing.Route("/api/reconstruction", self._reconstruct, methods=["POST"]),
            routing.Route("/api/transcript", self._transcribe, methods=["POST"]),
            routing.Route("/api/speech", self._generate, methods=["POST"]),
        ]
        handlers = dict.fromkeys(
            (exceptions.HTTPException, ValueError, OSError, Exception), _explained
        )
        return applications.Starlette(routes=[*get, *post], exception_handlers=handlers)

    async def _show(self, request: requests.Request) -> responses.Response:
        del request
        return responses.HTMLResponse(self._page)

    async def _file(self, request: requests.Request) -> responses.Response:
        name = request.url.path.removeprefix("/")
        return responses.Response(page.content(name), media_type=page.FILES[name])

    async def _describe(self, request: requests.Request) -> responses.Response:
        del request
        return responses.JSONResponse(self._model)

    async def _reconstruct(self, request: requests.Request) -> responses.Response:
        async with self._turns.place():
            sound = await _body(request, self._limits.num_bytes)
            found = await self._turns.take(request, self._answers.reconstruct, sound)
        return responses.JSONResponse(found)

    async def _transcribe(self, request: requests.Request) -> responses.Response:
        task = request.query_params.get("task", next(iter(self._answers.questions), ""))
        async with self._turns.place():
            sound = await _body(request, self._limits.num_bytes)
            found = await self._turns.take(request, self._answers.transcribe, sound, task)
        return responses.JSONResponse(found)

    async def _generate(self, request: requests.Request) -> responses.Response:
        given = _read(await _body(request, _JSON_BYTES))
        text, task = given.pop("text"), given.pop("task", next(iter(self._answers.kinds), ""))
        async with self._turns.place():
            found = await self._turns.take(request, self._answers.generate, text, task, **given)
        return responses.JSONResponse(found)


async def _body(request: requests.Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: where it is larger than `most` bytes, or does not come.
    """
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > most:
                    raise exceptions.HTTPException(
                        413, f"what is sent must have at most {most:,} bytes, got more"
                    )
    except TimeoutError:
        sentence = f"what is sent must come within {_BODY_SECONDS:g} s"
        raise exceptions.HTTPException(408, sentence) from None
    except requests.ClientDisconnect:
        raise exceptions.HTTPException(400, "what is sent must come whole") from None
    return bytes(content)


_KINDS = {"text": str, "task": str, "seconds": float, "seed": int}


def _read(body: bytes) -> dict[str, Any]:
    """What is asked to be generated, of JSON.

    Raises:
        HTTPException: for anything else.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if isinstance(given, dict) and "text" in given and given.keys() <= _KINDS.keys():
        given = {"seconds": 10.0, "seed": 0, **given}
        numbers = [given["seconds"], given["seed"]]
        if all(isinstance(given.get(name, ""), str) for name in ("text", "task")) and all(
            map(typed_json.is_number, numbers)
        ):
            if isinstance(given["seed"], int) and 0 <= given["seed"] < 2**31:
                return given
    raise exceptions.HTTPException(
        400,
        "JSON with a text, and perhaps its task, seconds and a seed from 0 to 2147483647, is "
        "wanted, got other",
    )


async def _explained(request: requests.Request, error: Exception) -> responses.Response:
    """An error in a sentence, with the status that says whose it is."""
    del request
    headers = None
    if isinstance(error, exceptions.HTTPException):
        code, sentence, headers = error.status_code, error.detail, error.headers
    elif isinstance(error, answers_lib.TooMuch):
        code, sentence = 413, command.explain(error)
    elif isinstance(error, ValueError):
        code, sentence = 422, command.explain(error)
    elif isinstance(error, OSError):
        code = 507 if error.errno in (*atomic.FULL, errno.EROFS) else 500
        sentence = command.explain(error)
    else:  # a bug, which the console tells whole
        code, sentence = 500, f"this is a bug of the server: {command.explain(error)}"
    return responses.JSONResponse({"error": sentence}, code, headers)
