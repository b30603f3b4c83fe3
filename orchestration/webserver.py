"""The Dagster UI, protected against requests from other web sites: ``dagster dev`` and its webserver.

Any web page can make a browser send requests to this machine, and with DNS rebinding even read the answers. Dagster's
webserver does not check where requests come from. So requests for unknown host names are refused, and so are requests
of other sites that could change anything. ``python -m orchestration.webserver`` takes the arguments of
``dagster-webserver``, and ``python -m orchestration.webserver dev`` those of ``dagster dev``.
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
"""Environment variable: more host names by which the UI may be reached, separated by commas."""
MLFLOW = "GEOLOC_MLFLOW"
"""Environment variable: the address of the MLflow UI."""
OWN = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE = {"GET", "HEAD", "OPTIONS"}
_TO_MLFLOW = re.compile("/mlflow(/.*)?")
OF_MODELS = "?workflowType=machine_learning"
"""Without it MLflow's pages show first what it has for chat applications."""


def guarded(app: ASGIApp, more: Collection[str] = (), mlflow: str | None = None) -> ASGIApp:
    """The application, with foreign requests refused and ``/mlflow/...`` redirected to that page of the MLflow UI.

    Links to MLflow are stored with Dagster's runs, so they cannot name a port, which may change. If this machine serves
    MLflow too, the redirect keeps the host name of the request.

    Args:
        app: The application.
        more: Host names by which it may be reached, besides those of this machine.
        mlflow: The address of the MLflow UI.
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
            await RedirectResponse(f"{place}/#{led[1] or '/'}{OF_MODELS}")(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def refused(kind: str, method: str, path: str, headers: Mapping[str, str], more: Collection[str] = ()) -> str | None:
    """Why a request is refused; None if it is not.

    Args:
        kind: ``http`` or ``websocket``.
        method: The HTTP method.
        path: The path of the URL.
        headers: The headers, by name in lower case.
        more: Host names that are allowed besides those of this machine.
    """
    host = headers.get("host", "")
    if _name(host) not in OWN.union(more):
        return f"the host name {host!r} is not allowed; to allow it: geoloc ui --allow-host NAME"
    if kind == "http" and method in _SAFE and not path.endswith("/graphql"):
        return None
    origin = headers.get("origin")
    page = (origin or "").partition("//")[2]
    if origin is not None and page != host and _name(page) not in more:
        return f"requests from pages of {origin!r} are not allowed"
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "requests from pages of other sites are not allowed"
    return None


def _as_asked(mlflow: str, host: str) -> str:
    """The address of MLflow, with the host name of the request if MLflow runs on this machine."""
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
