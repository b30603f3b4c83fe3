"""Dagster's pages, for this machine's own browser: ``dagster dev`` and its webserver, which by itself answers anyone.

A page of any site can have a browser send requests to this machine, and by a name of its own that resolves to it even
read the answers. So requests to foreign names are refused, as are foreign pages' requests that could change anything.
As a command, ``python -m orchestration.webserver`` takes the arguments of Dagster's webserver, and ``... dev`` those of
``dagster dev``.
"""

import os
import re
import sys
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ALLOWED_HOSTS = "GEOLOC_ALLOWED_HOSTS"
"""Environment variable: more names, with commas, that the pages may be asked for by."""
MLFLOW = "GEOLOC_MLFLOW"
"""Environment variable: where MLflow's pages are now."""
OWN = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE = {"GET", "HEAD", "OPTIONS"}
_TO_MLFLOW = re.compile("/mlflow(/.*)?")


def guarded(app: ASGIApp, more: Collection[str] = (), mlflow: str | None = None) -> ASGIApp:
    """An application that refuses foreign requests, and leads ``/mlflow/...`` to MLflow's page of that path.

    Links to MLflow are kept with Dagster's runs, so they say what they lead to, and not at which port it was then.
    Where MLflow is served by this machine too, they lead there by the name that this server was asked for by.

    Args:
        app: The application.
        more: Host names that it may be asked for by, beside this machine's own.
        mlflow: Where MLflow's pages are.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        refusal = refused(kind, scope.get("method", ""), scope["path"], Headers(scope=scope), more)
        led = _TO_MLFLOW.fullmatch(scope["path"])
        if refusal and kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal:
            await PlainTextResponse(refusal, 403)(scope, receive, send)
        elif led and mlflow and kind == "http":
            place = _as_asked(mlflow, Headers(scope=scope).get("host", ""))
            await RedirectResponse(f"{place}/#{led[1] or '/'}")(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def refused(kind: str, method: str, path: str, headers: Mapping[str, str], more: Collection[str] = ()) -> str | None:
    """Why a request is not answered.

    Args:
        kind: ``http`` or ``websocket``.
        method: Of HTTP.
        path: What is asked for.
        headers: By name in lower case.
        more: Host names that are allowed beside this machine's own.
    """
    host = headers.get("host", "")
    if _name(host) not in OWN.union(more):
        return f"the host {host!r} is not this server's; `geoloc ui --allow-host NAME` allows more"
    if kind == "http" and method in _SAFE and not path.endswith("/graphql"):
        return None
    origin = headers.get("origin")
    page = (origin or "").partition("//")[2]
    if origin is not None and page != host and _name(page) not in more:
        return f"pages of {origin!r} may not ask for this"
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "pages of another server may not ask for this"
    return None


def _as_asked(mlflow: str, host: str) -> str:
    """Where MLflow is, for who reached this machine by a host name that is allowed."""
    parts, name = urlsplit(mlflow), _name(host)
    if parts.hostname not in OWN or not name:
        return mlflow
    name = f"[{name}]" if ":" in name else name
    return parts._replace(netloc=f"{name}:{parts.port}" if parts.port else name).geturl()


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def main() -> None:
    """Run ``dagster dev``, or the webserver that it starts."""
    from orchestration import compat

    if sys.argv[1:2] == ["dev"]:
        del sys.argv[1]
        compat.run_dev(__spec__.name)
    else:
        more = [name for name in os.environ.get(ALLOWED_HOSTS, "").lower().split(",") if name]
        compat.run_webserver(lambda app: guarded(app, more, os.environ.get(MLFLOW)))


if __name__ == "__main__":
    main()
