"""The TCP face: what anybody on the machine may see, and what nobody gets."""

import asyncio
import json
import re
from html.parser import HTMLParser

import httpx
import msgspec
import pytest
from web_gateway import PlainGateway, plain, plant

from edge.errors import ConfigError
from edge.view import Snapshot
from edge.web.app import STATIC, assets
from edge.web.guard import host_name
from edge.web.options import WebOptions
from edge.web.server import Web


class Served:
    def __init__(self, web, gateway, client):
        self.web, self.gateway, self.client = web, gateway, client


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def serving(**options):
    """A decorator-free fixture body: serve a gateway with these options."""

    async def run(tmp_path):
        gateway = PlainGateway(tmp_path)
        web = Web(gateway, WebOptions(port=0, **options), tmp_path)
        web.open()
        task = asyncio.create_task(web.run())
        async with httpx.AsyncClient(base_url=web.url, timeout=10) as client:
            yield Served(web, gateway, client)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        web.close()

    return run


@pytest.fixture
async def served(tmp_path):
    async for each in serving(stream_period_ms=200, streams_max=2, hosts=("Andon.plant.example:8443",))(tmp_path):
        yield each


async def events(response):
    """Yield the snapshots of an event stream."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield msgspec.json.decode(line[6:], type=Snapshot)


async def test_the_snapshot_arrives_as_the_gateway_gave_it(served):
    response = await served.client.get("/api/snapshot")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert msgspec.json.decode(response.content, type=Snapshot) == served.gateway.now_snapshot


async def test_many_requests_compute_one_snapshot(served):
    await asyncio.gather(*(served.client.get("/api/snapshot") for _ in range(20)))
    assert served.gateway.snapshots < 20


async def test_tags_come_in_pages_that_say_whether_there_are_more(served):
    first = (await served.client.get("/api/tags", params={"limit": 50})).json()
    assert (len(first["tags"]), first["more"]) == (50, True)
    rest = (await served.client.get("/api/tags", params={"offset": 50, "limit": 50})).json()
    assert (len(rest["tags"]), rest["more"], rest["offset"]) == (20, False, 50)
    found = (await served.client.get("/api/tags", params={"search": "AXIS07"})).json()
    assert [tag["name"] for tag in found["tags"]] == ["cnc.axis07.position"]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=ten", "offset=-1", "search=" + "x" * 201])
async def test_a_wrong_query_gets_a_sentence(served, query):
    response = await served.client.get(f"/api/tags?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["error"]


async def test_health_is_200_only_while_data_flows(served):
    response = await served.client.get("/healthz")
    assert response.status_code == 200
    problems = response.json()["problems"]
    assert any(problem.startswith("press: No answer from 10.20.0.7:502") for problem in problems)
    assert any("strip.power_factor" in problem for problem in problems)
    served.gateway.now_snapshot = plain()
    await until(lambda: served.web.frames.latest()[0].healthy is False)
    response = await served.client.get("/healthz")
    assert response.status_code == 503
    assert response.json()["sentence"] == "No data yet."
    assert "ring: The disk is read-only." in response.json()["problems"]


async def test_the_stream_delivers_what_changes(served):
    async with served.client.stream("GET", "/api/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = events(response)
        assert (await anext(stream)).gateway == "plant1"
        served.gateway.now_snapshot = plain()
        async with asyncio.timeout(5):
            async for snapshot in stream:
                if snapshot.gateway == "new":
                    break
        await stream.aclose()


async def test_all_streams_share_one_snapshot_and_nobody_computes_it_when_nobody_looks(served):
    async with served.client.stream("GET", "/api/stream") as one, served.client.stream("GET", "/api/stream") as two:
        first, second = events(one), events(two)
        before = served.gateway.snapshots
        for _ in range(5):
            await anext(first)
            await anext(second)
        assert served.gateway.snapshots - before <= 6
        await first.aclose()
        await second.aclose()
    await until(lambda: served.web.frames.streams == 0)
    before = served.gateway.snapshots
    await asyncio.sleep(0.5)
    assert served.gateway.snapshots == before


async def test_one_stream_too_many_is_told_to_come_back(served):
    async with served.client.stream("GET", "/api/stream"), served.client.stream("GET", "/api/stream"):
        await until(lambda: served.web.frames.streams == 2)
        response = await served.client.get("/api/stream")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "10"
        assert "streams_max" in response.json()["error"]
        assert served.web.frames.refused == 1
    await until(lambda: served.web.frames.streams == 0)


async def test_the_end_of_the_gateway_ends_the_streams(tmp_path):
    web = Web(PlainGateway(tmp_path), WebOptions(port=0), tmp_path)
    web.open()
    task = asyncio.create_task(web.run())
    async with httpx.AsyncClient(base_url=web.url) as client, client.stream("GET", "/api/stream") as response:
        stream = events(response)
        await anext(stream)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await task
        assert [snapshot async for snapshot in stream] in ([], [plant()])
    web.close()
    assert not (tmp_path / "control.sock").exists()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]"])
async def test_a_foreign_host_name_is_refused(served, host):
    response = await served.client.get("/api/snapshot", headers={"Host": host})
    assert response.status_code == 421
    assert "plant1" not in response.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "andon.plant.example"])
async def test_own_and_configured_host_names_are_served(served, host):
    assert (await served.client.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [("Localhost.:80", "localhost"), ("[::1]:80", "[::1]"), ("[::1", "[::1]"), ("a:b:c", "a"), (" x ", "x"), ("", "")],
)
def test_host_headers_are_read_without_their_port(header, name):
    assert host_name(header) == name


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/api/snapshot", "/api/stream", "/control/command", "/nowhere"])
async def test_the_tcp_face_is_read_only(served, method, path):
    response = await served.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/control/sql", "/control/command", "/docs", "/static/", "/static/../app.py"])
async def test_the_control_api_is_not_on_tcp(served, path):
    assert (await served.client.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/static/page.js", "/api/stream"])
async def test_every_answer_forbids_framing_and_foreign_content(served, path):
    response = await served.client.head(path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "server" not in response.headers


TYPES = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain",
}  # fmt: skip


async def test_every_asset_is_served_with_its_type_and_revalidated(served):
    assert {path for path in STATIC.rglob("*") if path.is_file()} == set(assets().values())
    for address, path in assets().items():
        response = await served.client.get(address)
        assert response.content == path.read_bytes()
        assert response.headers["content-type"].startswith(TYPES[path.suffix])
        again = await served.client.get(address, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


class Page(HTMLParser):
    """Collects what the page refers to."""

    def __init__(self):
        super().__init__()
        self.ids, self.addresses, self.inline, self.fields, self.bars = [], [], [], {}, set()
        self.template = ""
        self._raw = None
        self.feed((STATIC / "index.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        self.inline += [name for name in attributes if name.startswith("on") or name == "style"]
        self._raw = tag if tag in {"script", "style"} else None
        if tag == "template":
            self.template = attributes["id"]
        if "data-field" in attributes:
            self.fields.setdefault(self.template, set()).add(attributes["data-field"])

    def handle_data(self, data):
        if self._raw and data.strip():
            self.inline.append(self._raw)

    def handle_endtag(self, tag):
        self._raw = None


def script():
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(STATIC.glob("*.js")))


def test_the_page_obeys_its_own_policy():
    page = Page()
    assert page.inline == []
    assert all(re.match(r"/(?!/)|#[a-z-]+$", address) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert {a for a in page.addresses if a.startswith("/static/")} <= set(assets())
    for path in (path for path in STATIC.iterdir() if path.is_file()):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, f"{path.name} must not need the network"
        assert "https:" not in text, f"{path.name} must not need the network"


def test_text_never_becomes_markup():
    for path in STATIC.glob("*.js"):
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\(\"(on|style)"
        )
        assert not re.search(forbidden, path.read_text(encoding="utf-8")), path.name


def test_ids_are_unique_and_those_of_the_script_exist():
    page = Page()
    assert len(page.ids) == len(set(page.ids))
    used = set(re.findall(r'\$\("([^"]+)"\)', script())) | set(re.findall(r'list\(\$\("[^"]+"\), "([^"]+)"', script()))
    assert used
    assert used <= set(page.ids)


@pytest.mark.parametrize(
    ("function", "template"),
    [("showMachine", "machine-card"), ("showAlarm", "alarm-row"), ("showDevice", "device-row"), ("showTag", "tag-row")],
)
def test_fields_that_the_script_fills_are_in_the_template(function, template):
    body = script().partition(f"function {function}(")[2].partition("\nfunction ")[0]
    used = set(re.findall(r"\bf\.(\w+)", body))
    assert used
    assert used == Page().fields[template]


def test_keys_that_the_script_reads_are_in_the_snapshot():
    snapshot = json.loads(msgspec.json.encode(plant()))
    kinds = {"s": snapshot, "m": snapshot["machines"][0], "d": snapshot["devices"][0], "a": snapshot["alarms"][0]}
    kinds |= {"ring": snapshot["ring"], "broker": snapshot["broker"]}
    shown = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("page.js", "alarms.js"))
    for name, value in kinds.items():
        read = set(re.findall(rf"(?<![\w.])(?<!\$\(){name}\.([a-z_]+)\b(?!\()", shown))
        assert read, name
        assert read <= set(value), name


async def test_a_port_in_use_is_a_sentence_and_gives_everything_back(served, tmp_path):
    port = int(served.web.url.rstrip("/").rpartition(":")[2])
    directory = tmp_path / "second"
    directory.mkdir()
    second = Web(PlainGateway(directory), WebOptions(port=port), directory)
    with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1 port {port}.*\[web\] port"):
        second.open()
    third = Web(PlainGateway(directory), WebOptions(enabled=False), directory)
    third.open()
    assert third.url == ""
    third.close()
