"""The shape of answers, and how errors become sentences: what every route shares."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import AndonError, ConfigError, StorageError

BODY_BYTES_MAX: Final = 256 * 1024

Handler = Callable[[Request], Awaitable[Response]]


class Invalid(Exception):
    """A request that cannot be served as it stands; the text goes back to whoever sent it."""


def _plain(value: Any) -> str:
    """Turn what JSON has no word for (intervals, UUIDs, nested types of SQL) into text."""
    return str(value)


def answer(value: Any, status: int = 200) -> Response:
    """Return JSON; NaN and infinity become null, as JSON has neither."""
    return Response(msgspec.json.encode(value, enc_hook=_plain), status, media_type="application/json")


def failure(sentence: str, status: int, problems: list[str] | None = None) -> Response:
    body: dict[str, Any] = {"error": sentence}
    if problems is not None:
        body["problems"] = problems
    return answer(body, status)


def integer(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number of the query string. Raises Invalid."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else int(text)
    except ValueError:
        raise Invalid(f"{name} is {text!r}, expected a whole number from {low} to {high}") from None
    if not low <= value <= high:
        raise Invalid(f"{name} is {value}, expected a whole number from {low} to {high}")
    return value


async def read_body(request: Request) -> bytes:
    """Return the body. Raises Invalid beyond BODY_BYTES_MAX."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise Invalid(f"the request is larger than {BODY_BYTES_MAX} bytes")
    return body


def sentences(handler: Handler) -> Handler:
    """Turn the errors that the gateway raises on purpose into answers; any other error is a fault and stays one."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Invalid as error:
            return failure(str(error), 400)
        except msgspec.DecodeError as error:
            return failure(f"the request is not what {request.url.path} expects: {error}", 400)
        except ConfigError as error:
            return failure("The configuration has mistakes; the old one stays.", 422, [str(p) for p in error.problems])
        except StorageError as error:
            return failure(str(error), 503)
        except AndonError as error:
            return failure(str(error), 422)
        except TimeoutError:
            return failure("The gateway did not answer in time: it is overloaded or its disk hangs.", 504)

    return handle
