import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from orchestration.webserver import guarded


async def page(_):
    return PlainTextResponse("page")


async def talk(socket):
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


@pytest.fixture
def client():
    """What an application behind the guard answers."""
    routes = [
        Route("/", page, methods=["GET", "POST"]),
        Route("/graphql", page, methods=["GET", "POST"]),
        WebSocketRoute("/graphql", talk),
    ]
    app = guarded(Starlette(routes=routes), ["geoloc.example.org"], "http://127.0.0.1:5007")
    with TestClient(app, "http://127.0.0.1:3000", follow_redirects=False) as made:
        yield made


HOSTS = {
    "127.0.0.1:3000": True,
    "localhost:3001": True,
    "LOCALHOST": True,
    "[::1]:3000": True,
    "geoloc.example.org:3000": True,
    "evil.example.org": False,
    "evil.example.org:3000": False,
    "127.0.0.1.evil.example.org": False,
    "localhost@evil.example.org": False,
    "geoloc.example.org.": False,
    "[::1": False,
    "": False,
}


@pytest.mark.parametrize(("host", "allowed"), HOSTS.items())
def test_a_foreign_name_is_refused(client, host, allowed):
    code = 200 if allowed else 403
    assert client.get("/", headers={"Host": host}).status_code == code
    assert client.get("/mlflow/x", headers={"Host": host}).status_code == (307 if allowed else 403)
    assert client.post("/graphql", headers={"Host": host}).status_code == code
    assert connects(client, {"Host": host}) == allowed


def connects(client, headers):
    try:
        with client.websocket_connect("/graphql", headers=headers) as socket:
            return socket.receive_text() == "hello"
    except WebSocketDisconnect:
        return False


FROM = [
    ({}, True),  # no browser
    ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Origin": "https://geoloc.example.org"}, True),
    ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-site"}, False),
    ({"Origin": "http://evil.example.org"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "http://[::1"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),  # a picture's address
]


@pytest.mark.parametrize(("headers", "allowed"), FROM)
def test_a_foreign_page_changes_nothing(client, headers, allowed):
    headers = {"Host": "localhost:3000", **headers}
    code = 200 if allowed else 403
    assert client.post("/", headers=headers).status_code == code
    assert client.post("/graphql", headers=headers).status_code == code
    assert client.get("/graphql?query=mutation", headers=headers).status_code == code
    assert connects(client, headers) == allowed
    assert client.get("/", headers=headers).status_code == 200, "a link from elsewhere leads here"


MODELS = "?workflowType=machine_learning"
"""What opens MLflow's pages on trainings, and not on what it has for chat applications."""


def test_links_to_mlflow_lead_to_where_it_is_now(client):
    led = client.get("/mlflow/models/geolocator/versions/3")
    assert led.headers["location"] == f"http://127.0.0.1:5007/#/models/geolocator/versions/3{MODELS}"
    assert client.get("/mlflow").headers["location"] == f"http://127.0.0.1:5007/#/{MODELS}"


REACHED = {
    "geoloc.example.org:3000": "http://geoloc.example.org:5007/#/x",
    "localhost:3000": "http://localhost:5007/#/x",
    "[::1]:3000": "http://[::1]:5007/#/x",
}


@pytest.mark.parametrize(("host", "place"), REACHED.items())
def test_links_to_mlflow_keep_the_name_that_was_asked_for(client, host, place):
    assert client.get("/mlflow/x", headers={"Host": host}).headers["location"] == place + MODELS


def test_links_to_a_remote_mlflow_lead_there():
    app = guarded(Starlette(), ["geoloc.example.org"], "https://mlflow.example.org/base")
    with TestClient(app, "http://geoloc.example.org:3000", follow_redirects=False) as client:
        assert client.get("/mlflow/x").headers["location"] == f"https://mlflow.example.org/base/#/x{MODELS}"
