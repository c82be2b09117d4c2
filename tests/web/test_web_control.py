"""The control socket: who may open it, what the command line can ask, and what a person reads when it goes wrong."""

import asyncio
import contextlib
import os
import re
import socket
import stat

import httpx
import pytest
from web_gateway import PlainGateway

from edge.control import Control
from edge.errors import AndonError, ConfigError, Problem, Refused, Unreachable
from edge.web.options import WebOptions
from edge.web.server import ControlSocket, Web


class Served:
    def __init__(self, gateway, directory):
        self.gateway, self.directory = gateway, directory

    async def ask(self, question):
        """Run a synchronous question of the client beside the server's loop."""

        def run():
            with Control(self.directory) as control:
                return question(control)

        return await asyncio.to_thread(run)


@pytest.fixture
async def served(tmp_path):
    gateway = PlainGateway(tmp_path)
    web = Web(gateway, WebOptions(enabled=False, sql_rows_max=100), tmp_path)
    web.open()
    task = asyncio.create_task(web.run())
    yield Served(gateway, tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    web.close()


async def test_status_is_the_snapshot(served):
    assert await served.ask(lambda c: c.status()) == served.gateway.now_snapshot


async def test_metrics_are_there_without_the_page(served):
    assert "andon_healthy 1.0" in await served.ask(lambda c: c.metrics())


async def test_a_query_returns_columns_types_and_rows(served):
    result = await served.ask(lambda c: c.query("select 1"))
    assert result.columns == ["n", "text", "x", "none"]
    assert result.types == ["BIGINT", "VARCHAR", "DOUBLE", "INTEGER"]
    assert list(result.rows[1]) == [1, "row 1", None, None]
    assert result.truncated is False


async def test_the_rows_of_a_query_are_bounded_by_wish_and_by_the_gateway(served):
    result = await served.ask(lambda c: c.query("select 1", rows_max=2))
    assert (len(result.rows), result.truncated) == (2, True)
    assert len((await served.ask(lambda c: c.query("select 1", rows_max=10**9))).rows) == 5


async def test_a_wrong_query_is_answered_with_the_gateways_sentence(served):
    with pytest.raises(AndonError, match=r"There is no table nothere\. There are: readings"):
        await served.ask(lambda c: c.query("select * from nothere"))


async def test_a_slow_query_says_that_it_was_stopped(served):
    with pytest.raises(AndonError, match="longer than 2 s and was stopped"):
        await served.ask(lambda c: c.query("select slow", timeout_s=2))


async def test_a_command_carries_its_user_and_brings_back_the_reply(served):
    reply = await served.ask(lambda c: c.command("acknowledge", {"alarm": "press.bearing_hot"}, user="maria"))
    assert (reply.ok, reply.code, reply.data["state"]) == (True, "ok", "C")
    (command,) = served.gateway.commands
    assert (command.name, command.user, command.origin) == ("acknowledge", "maria", "control")
    assert command.id == reply.command
    reply = await served.ask(lambda c: c.command("acknowledge", {"alarm": "other"}))
    assert (reply.ok, reply.code) == (False, "unknown_alarm")
    assert served.gateway.commands[1].user != ""


async def test_reload_tells_what_changed_or_every_mistake(served):
    assert (await served.ask(lambda c: c.reload())).changed == ("device press",)
    served.gateway.reload_error = ConfigError(
        [Problem("tags.csv", 7, "no device pres", "did you mean press?"), Problem("gateway.toml", 0, "unreadable")]
    )
    with pytest.raises(AndonError) as caught:
        await served.ask(lambda c: c.reload())
    assert str(caught.value).splitlines() == [
        "The configuration has mistakes; the old one stays.",
        "tags.csv:7: no device pres (did you mean press?)",
        "gateway.toml: unreadable",
    ]


async def test_an_export_arrives_whole_and_leaves_nothing_behind(served, tmp_path):
    target = tmp_path / "out" / "day.parquet"
    target.parent.mkdir()
    target.write_bytes(b"old")
    exported = await served.ask(lambda c: c.export(0, 10, target))
    assert (exported.path, exported.size) == (target, 200_008)
    assert target.read_bytes()[:4] == b"PAR1"
    assert [path.name for path in target.parent.iterdir()] == ["day.parquet"]
    async with asyncio.timeout(5):
        while served.gateway.exports[0].exists():
            await asyncio.sleep(0.01)


async def test_a_refused_export_leaves_the_old_file(served, tmp_path):
    target = tmp_path / "day.parquet"
    target.write_bytes(b"old")
    with pytest.raises(AndonError, match="start of the export must be before its end"):
        await served.ask(lambda c: c.export(10, 10, target))
    assert target.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/control/sql", b"{", "the request is not what /control/sql expects"),
        ("/control/sql", b'{"sql": 1}', r"Expected `str`, got `int` - at `\$.sql`"),
        ("/control/sql", b'{"sql": "x", "limit": 1}', "unknown field `limit`"),
        ("/control/sql", b'{"sql": "x", "rows_max": -1}', "must be greater than zero"),
        ("/control/command", b'{"id":"1","name":"reset","user":""}', "a command names its user"),
        ("/control/sql", b'{"sql": "' + b"x" * 300_000 + b'"}', "larger than 262144 bytes"),
    ],
)
async def test_a_malformed_request_gets_a_sentence(served, path, body, sentence):
    transport = httpx.AsyncHTTPTransport(uds=str(served.directory / "control.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.post(path, content=body)
        assert response.status_code == 400
        assert re.search(sentence, response.json()["error"])
        assert (await client.get(path)).status_code == 405


async def test_only_the_owner_may_open_the_socket(served):
    mode = (served.directory / "control.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_without_a_gateway_the_client_says_how_to_start_one(tmp_path):
    with Control(tmp_path) as control, pytest.raises(Unreachable, match=r"no gateway is running on .*`andon run`"):
        control.status()


def test_a_dead_gateways_socket_reads_as_no_gateway_and_is_replaced(tmp_path):
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Control(tmp_path) as control, pytest.raises(Unreachable, match="no gateway is running"):
        control.status()
    with Control(tmp_path) as control, pytest.raises(Unreachable, match="no gateway is running"):
        control.export(0, 1, tmp_path / "x.parquet")
    mine = ControlSocket(path)
    mine.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    mine.close()
    assert not path.exists()


@contextlib.contextmanager
def somebody_else(path):
    """Take the right to `path` away: by another user's eyes as root, by mode bits otherwise."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        path.chmod(0)
        yield


def test_a_socket_of_somebody_else_says_who_may(tmp_path):
    mine = ControlSocket(tmp_path / "control.sock")
    mine.open()
    with somebody_else(mine.path), Control(tmp_path) as control, pytest.raises(Refused, match="run this as the user"):
        control.status()
    mine.close()


def test_a_second_gateway_on_the_same_directory_is_refused_and_the_first_lives(tmp_path):
    first, second = ControlSocket(tmp_path / "control.sock"), ControlSocket(tmp_path / "control.sock")
    first.open()
    with pytest.raises(ConfigError, match="another gateway runs on"):
        second.open()
    second.close()
    assert first.path.exists()
    first.close()
    second.open()
    second.close()
    second.close()


def test_a_path_too_long_for_a_socket_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="choose a shorter state_dir"):
        ControlSocket(tmp_path / ("x" * 120)).open()
