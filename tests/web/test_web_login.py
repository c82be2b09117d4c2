"""Who may do what on the page: every route for every role, the ways in, and the ways out again."""

import asyncio
import contextlib
import stat

import httpx
import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner
from web_gateway import PlainGateway

from edge import clock as wall
from edge.cli import main
from edge.control import Control
from edge.errors import AndonError, StorageError
from edge.web.backoff import Backoff
from edge.web.login import Gate, is_loopback
from edge.web.options import WebOptions
from edge.web.roles import Role, covers, role_for
from edge.web.server import Web
from edge.web.sessions import PER_USER_MAX, Sessions
from edge.web.trail import REFUSALS_PER_MINUTE_MAX, Trail
from edge.web.users import Users, weakness
from plant.instant import NS_PER_S, Instant

PASSWORD = "a sentence to remember"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
NAMES = {Role.VIEWER: "vera", Role.OPERATOR: "otto", Role.ENGINEER: "erik"}


class Clock:
    """Time that only the test moves."""

    def __init__(self):
        self.shift_s = 0.0

    def __call__(self):
        now = wall.now()
        return Instant(now.utc + int(self.shift_s * NS_PER_S), now.monotonic + int(self.shift_s * NS_PER_S))


class Visitor:
    """A browser at the page: keeps its cookie, sends Origin and token as the page does."""

    def __init__(self, client, origin):
        self.client, self.origin, self.token = client, origin, ""

    async def post(self, path, body, **headers):
        all_headers = {"Origin": self.origin, "X-Andon-Token": self.token} | headers
        sent = {name: value for name, value in all_headers.items() if value is not None}
        return await self.client.post(path, json=body, headers=sent)

    async def who(self):
        return (await self.client.get("/api/session")).json()

    async def login(self, name, password=PASSWORD, **headers):
        response = await self.post("/api/login", {"name": name, "password": password}, **headers)
        self.token = (await self.who())["token"]
        return response


class Rig:
    def __init__(self, web, gateway, clock):
        self.web, self.gateway, self.clock = web, gateway, clock
        self.clients = []

    def visitor(self):
        client = httpx.AsyncClient(base_url=self.web.url, timeout=10)
        self.clients.append(client)
        return Visitor(client, self.web.url.rstrip("/"))

    async def as_role(self, role):
        visitor = self.visitor()
        if role is not None:
            assert (await visitor.login(NAMES[role])).status_code == 200
        return visitor

    def outcomes(self, action):
        return [outcome for _, name, outcome, _ in self.gateway.trail if name == action]


@contextlib.asynccontextmanager
async def rig(folder, users=tuple(Role), **options):
    gateway, clock = PlainGateway(folder), Clock()
    web = Web(gateway, WebOptions(port=0, **options), folder)
    web.gate = Gate(Users(web.gate.users.path, CHEAP), web.options, gateway.audit, clock)
    for role in users:
        web.gate.users.add(NAMES[role], role, PASSWORD, 0)
    web.open()
    task = asyncio.create_task(web.run())
    made = Rig(web, gateway, clock)
    try:
        yield made
    finally:
        for client in made.clients:
            await client.aclose()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        web.close()


@pytest.fixture
async def page(tmp_path):
    async with rig(tmp_path) as made:
        yield made


ACKNOWLEDGE = {"name": "acknowledge", "arguments": {"alarm": "press.bearing_hot", "occurrence": "1"}}
OUT_OF_SERVICE = {"name": "out_of_service", "arguments": {"alarm": "press.bearing_hot", "comment": "x"}}
ROUTES = [
    ("GET", "/", None, None),
    ("GET", "/static/page.js", None, None),
    ("GET", "/healthz", None, None),
    ("GET", "/metrics", None, None),
    ("GET", "/api/session", None, None),
    ("GET", "/api/snapshot", None, "look"),
    ("GET", "/api/tags", None, "look"),
    ("GET", "/api/states?machine=cnc", None, "look"),
    ("GET", "/api/trend?tag=cnc.oee", None, "look"),
    ("HEAD", "/api/stream", None, None),
    ("POST", "/api/stay", {}, Role.VIEWER),
    ("POST", "/api/command", ACKNOWLEDGE, Role.OPERATOR),
    ("POST", "/api/command", OUT_OF_SERVICE, Role.ENGINEER),
    ("POST", "/api/sql", {"sql": "select 1"}, Role.ENGINEER),
    ("POST", "/api/logout", {}, Role.VIEWER),
]


@pytest.mark.parametrize("open_to_all", [True, False])
@pytest.mark.parametrize("role", [None, *Role])
async def test_every_route_for_every_role(tmp_path, role, open_to_all):
    async with rig(tmp_path, view_without_login=open_to_all) as page:
        visitor = await page.as_role(role)
        for method, path, body, needed in ROUTES:
            if method == "POST":
                status = (await visitor.post(path, body)).status_code
            else:
                status = (await visitor.client.request(method, path)).status_code
            allowed = needed is None or (
                (open_to_all or role is not None) if needed == "look" else role is not None and covers(role, needed)
            )
            expected = 200 if allowed else 401 if role is None else 403
            assert status == expected, (method, path, role)


async def test_the_matrix_misses_no_route(page):
    from edge.web.app import page_app

    app = page_app(page.gateway, page.web.options, page.web.frames, page.web.gate)
    served = {route.path for route in app.routes if not route.path.startswith("/static/")} - {"/api/login"}
    assert served - {"/api/stream"} == {path.partition("?")[0] for _, path, _, _ in ROUTES if "static" not in path} - {
        "/api/stream"
    }


async def test_the_live_stream_is_for_those_who_may_look_and_ends_with_the_login(tmp_path):
    async with rig(tmp_path, view_without_login=False, stream_period_ms=200) as page:
        stranger, vera = page.visitor(), await page.as_role(Role.VIEWER)
        assert (await stranger.client.get("/api/stream")).status_code == 401
        async with vera.client.stream("GET", "/api/stream") as response:
            lines = response.aiter_lines()
            assert response.status_code == 200
            assert await anext(lines)
            page.web.gate.sessions.revoke("vera")
            async with asyncio.timeout(5):
                assert len([line async for line in lines]) < 20


async def test_a_command_carries_the_user_of_the_session_and_its_refusal_is_kept(page):
    otto = await page.as_role(Role.OPERATOR)
    reply = (await otto.post("/api/command", ACKNOWLEDGE)).json()
    assert reply["ok"] is True
    (command,) = page.gateway.commands
    assert (command.name, command.user, command.origin) == ("acknowledge", "otto", "page")
    assert command.id == reply["command"]
    forged = {"name": "correct", "arguments": {"asset": "cnc", "user": "vera"}}
    assert (await otto.post("/api/command", forged)).json()["ok"] is False
    assert page.gateway.commands[1].user == "otto"
    assert page.gateway.trail[-1][:3] == ("otto", "correct", "unknown_alarm")
    assert (await otto.post("/api/command", {"name": "reload", "arguments": {}})).status_code == 400
    assert len(page.gateway.commands) == 2


async def test_times_arrive_to_the_nanosecond(page):
    otto = await page.as_role(Role.OPERATOR)
    spans = (await otto.client.get("/api/states?machine=cnc")).json()["spans"]
    assert [span["exact"] for span in spans] == [[str(span["start"]), str(span["end"])] for span in spans]
    start, end = "1795161600000000123", "1795161660000000001"
    arguments = {"asset": "cnc", "start": start, "end": end, "why": "x", "state": "down", "reason": "breakdown"}
    await otto.post("/api/command", {"name": "correct", "arguments": arguments})
    assert page.gateway.commands[-1].arguments == arguments | {"start": int(start), "end": int(end)}


FOREIGN = [
    ({"Origin": None}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Origin": "http://["}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Content-Type": "text/plain"}, 415),
    ({"X-Andon-Token": None}, 403),
    ({"X-Andon-Token": "guessed"}, 403),
    ({"X-Andon-Token": "é".encode()}, 403),
]


async def test_a_foreign_page_cannot_act_with_somebodys_cookie(page):
    otto = await page.as_role(Role.OPERATOR)
    for headers, status in FOREIGN:
        assert (await otto.post("/api/command", ACKNOWLEDGE, **headers)).status_code == status, headers
    assert page.gateway.commands == []


async def test_the_token_of_one_session_is_no_good_in_another(page):
    otto, erik = await page.as_role(Role.OPERATOR), await page.as_role(Role.ENGINEER)
    assert (await otto.post("/api/command", ACKNOWLEDGE, **{"X-Andon-Token": erik.token})).status_code == 403


async def test_a_foreign_page_cannot_log_somebody_in(page):
    visitor = page.visitor()
    body = {"name": "otto", "password": PASSWORD}
    assert (await visitor.post("/api/login", body, Origin="http://evil.example")).status_code == 403
    assert "set-cookie" not in (await visitor.post("/api/login", body, Origin=None)).headers


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(page):
    cookie = (await page.visitor().login("otto")).headers["set-cookie"]
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert not any(part.startswith(("max-age", "expires", "domain")) for part in parts)
    token = cookie.partition("=")[2].partition(";")[0]
    assert len(token) >= 43
    assert token not in str(page.web.gate.sessions._sessions)


async def test_a_login_gives_a_fresh_session_and_ends_the_old_one(page):
    otto = await page.as_role(Role.OPERATOR)
    before = otto.client.cookies["andon"]
    await otto.login("otto")
    assert otto.client.cookies["andon"] != before
    assert page.web.gate.sessions.find(before) is None


async def test_without_activity_a_session_ends_after_the_idle_time(page):
    otto = await page.as_role(Role.OPERATOR)
    for _ in range(3):
        page.clock.shift_s += 14 * 60
        assert (await otto.post("/api/stay", {})).status_code == 200
    page.clock.shift_s += 14 * 60
    for path in ("/api/snapshot", "/api/session", "/api/tags"):
        await otto.client.get(path)  # what a page asks by itself is no activity
    assert (await otto.who())["user"] == "otto"
    page.clock.shift_s += 61
    assert (await otto.who())["user"] == ""
    assert (await otto.post("/api/command", ACKNOWLEDGE)).status_code == 401


async def test_an_active_session_ends_after_its_life_time(page):
    otto = await page.as_role(Role.OPERATOR)
    while page.clock.shift_s < 12 * 3600 - 840:
        page.clock.shift_s += 840
        assert (await otto.post("/api/stay", {})).status_code == 200
    page.clock.shift_s += 840
    assert (await otto.post("/api/stay", {})).status_code == 401


async def test_logging_out_ends_the_session_for_whoever_has_its_cookie(page):
    otto = await page.as_role(Role.OPERATOR)
    cookie = otto.client.cookies["andon"]
    response = await otto.post("/api/logout", {})
    assert 'andon=""' in response.headers["set-cookie"]
    thief = page.visitor()
    thief.client.cookies.set("andon", cookie)
    assert (await thief.who())["user"] == ""


async def ask(page, question):
    def run():
        with Control(page.gateway.directory) as control:
            return question(control)

    return await asyncio.to_thread(run)


async def test_who_is_removed_or_gets_another_password_is_logged_out_at_once(page):
    otto, erik = await page.as_role(Role.OPERATOR), await page.as_role(Role.ENGINEER)
    users = {user.name: user for user in await ask(page, lambda c: c.users())}
    assert (users["otto"].role, users["otto"].sessions, users["vera"].sessions) == ("operator", 1, 0)
    assert "1 sessions ended" in await ask(page, lambda c: c.change_user("remove", "otto"))
    assert (await otto.who())["user"] == ""
    assert (await otto.login("otto")).status_code == 401
    await ask(page, lambda c: c.change_user("password", "erik", password="another fine sentence"))
    assert (await erik.post("/api/sql", {"sql": "select 1"})).status_code == 401
    assert (await erik.login("erik", "another fine sentence")).status_code == 200
    await ask(page, lambda c: c.change_user("logout", "erik"))
    assert (await erik.who())["user"] == ""
    assert page.outcomes("user_remove") == page.outcomes("user_password") == page.outcomes("user_logout") == ["ok"]


async def test_a_bad_change_of_users_is_a_sentence_and_kept(page):
    for name, password, sentence in [
        ("otto", PASSWORD, "there is a user otto already"),
        ("anna", "short", "shorter than 12"),
        ("anna", "anna und ihr Hund", "holds the user's name"),
        ("Änna", PASSWORD, "no user name"),
        ("../x", PASSWORD, "no user name"),
    ]:
        with pytest.raises(AndonError, match=sentence):
            await ask(page, lambda c, n=name, p=password: c.change_user("add", n, "viewer", p))
    assert page.outcomes("user_add") == ["refused"] * 5
    assert PASSWORD not in str(page.gateway.trail)


async def test_a_wrong_name_and_a_wrong_password_are_told_and_delayed_alike(page):
    answers = {}
    for name in ("otto", "nobody"):
        visitor, seen = page.visitor(), []
        for _ in range(7):
            response = await visitor.login(name, "wrong password")
            seen.append((response.status_code, response.json()["error"], response.headers.get("retry-after")))
        answers[name] = seen
    assert answers["otto"] == answers["nobody"]
    assert [status for status, _, _ in answers["otto"]] == [401] * 4 + [429] * 3
    assert page.outcomes("login").count("must_wait") == 6
    names = [user for user, action, _, _ in page.gateway.trail if action == "login"]
    assert set(names) == {"otto", "unknown"}, "what is no user may be a password in the wrong field"


async def test_waits_grow_hold_for_the_right_password_too_and_end(page):
    otto = page.visitor()
    waits = []
    for _ in range(12):
        while (response := await otto.login("otto", "wrong password")).status_code == 429:
            waits.append(int(response.headers["retry-after"]))
            assert (await otto.login("otto")).status_code == 429, "guessing right too soon must not tell"
            page.clock.shift_s += waits[-1]
    assert waits == sorted(waits)
    assert waits[-1] > 60
    page.clock.shift_s += 301
    assert (await otto.login("otto")).status_code == 200
    assert (await otto.login("otto", "wrong password")).status_code == 401


async def test_one_address_cannot_try_many_names(page):
    visitor = page.visitor()
    statuses = [(await visitor.login(f"name{i}", "wrong password")).status_code for i in range(22)]
    assert statuses == [401] * 20 + [429] * 2


async def test_attempts_at_the_same_time_do_not_slip_past_the_wait(page):
    visitors = [page.visitor() for _ in range(8)]
    answers = await asyncio.gather(*(v.post("/api/login", {"name": "otto", "password": "wrong"}) for v in visitors))
    assert sum(answer.status_code == 401 for answer in answers) <= 5


async def test_without_users_the_page_is_for_looking_and_says_how_to_begin(tmp_path):
    async with rig(tmp_path, users=()) as page:
        visitor = page.visitor()
        who = await visitor.who()
        assert (who["login"], who["role"], who["look"]) == ("no_users", "viewer", True)
        assert "andon user add" in who["sentence"]
        assert (await visitor.login("admin", "admin")).status_code == 403
        assert (await visitor.client.get("/api/snapshot")).status_code == 200


async def test_passwords_do_not_cross_the_network_in_the_clear(tmp_path):
    async with rig(tmp_path, host="0.0.0.0") as page:
        port = page.web.url.rstrip("/").rpartition(":")[2]
        page.web.url = f"http://127.0.0.1:{port}/"
        visitor = page.visitor()
        assert (await visitor.who())["login"] == "unsafe"
        response = await visitor.login("otto")
        assert response.status_code == 403
        assert "behind_tls_proxy" in response.json()["error"]


async def test_behind_a_tls_proxy_cookies_are_secure_and_addresses_the_proxys_word(tmp_path):
    async with rig(tmp_path, host="0.0.0.0", behind_tls_proxy=True, hosts=("andon.plant.example",)) as page:
        page.web.url = page.web.url.replace("0.0.0.0", "127.0.0.1")
        visitor = page.visitor()
        assert (await visitor.login("otto")).status_code == 403, "plain http is not the proxy's origin"
        visitor.origin = "https://andon.plant.example"
        forwarded = {"X-Forwarded-For": "6.6.6.6, 10.1.1.7"}
        response = await visitor.login("otto", **forwarded)
        assert response.status_code == 200
        assert response.headers["set-cookie"].startswith("__Host-andon=")
        assert "; secure" in response.headers["set-cookie"].lower()
        assert page.gateway.trail[-1][3]["address"] == "10.1.1.7"
        assert page.gateway.trail[-1][2] == "ok"
        visitor.origin = "https://evil.example"
        assert (await visitor.login("otto")).status_code == 403


async def test_a_damaged_file_of_users_lets_nobody_in_and_stops_nothing(tmp_path):
    (tmp_path / "users.json").write_text('{"users": [{"name": "otto"')
    async with rig(tmp_path, users=()) as page:
        visitor = page.visitor()
        assert (await visitor.who())["login"] == "damaged"
        assert (await visitor.login("otto")).status_code == 403
        assert (await visitor.client.get("/api/snapshot")).status_code == 200
        with pytest.raises(AndonError, match="damaged"):
            await ask(page, lambda c: c.change_user("add", "otto", "operator", PASSWORD))
        (tmp_path / "users.json").unlink()
        await ask(page, lambda c: c.change_user("add", "otto", "operator", PASSWORD))
        assert (await visitor.login("otto")).status_code == 200


async def test_sql_is_kept_with_its_user_and_bounded(page):
    erik = await page.as_role(Role.ENGINEER)
    assert (await erik.post("/api/sql", {"sql": "select 7"})).json()["columns"] == ["n", "text", "x", "none"]
    assert page.gateway.trail[-1] == ("erik", "sql", "ok", {"statement": "select 7"})
    response = await erik.post("/api/sql", {"sql": "select * from nothere"})
    assert response.status_code == 422
    assert "There is no table nothere" in response.json()["error"]
    assert page.gateway.trail[-1][:3] == ("erik", "sql", "refused")
    await erik.post("/api/sql", {"sql": "select 1", "rows_max": 10**9})
    assert (await erik.post("/api/sql", {"sql": "select slow"})).status_code == 504


async def test_users_survive_a_restart_and_their_file_is_private(tmp_path):
    users = Users(tmp_path / "users.json")
    users.load()
    users.add("Otto ", Role.OPERATOR, PASSWORD, 5)
    assert stat.S_IMODE((tmp_path / "users.json").stat().st_mode) == 0o600
    text = (tmp_path / "users.json").read_text()
    assert PASSWORD not in text
    assert "$argon2id$" in text
    again = Users(tmp_path / "users.json")
    again.load()
    assert again.role("otto") is Role.OPERATOR
    assert again.check("OTTO", PASSWORD).name == "otto"
    assert again.check("otto", PASSWORD + " ") is None
    assert again.check("nobody", PASSWORD) is None


def test_a_file_that_cannot_be_written_changes_nothing(tmp_path):
    users = Users(tmp_path / "gone" / "users.json")
    with pytest.raises(StorageError, match="cannot write the users"):
        users.add("otto", Role.OPERATOR, PASSWORD, 0)
    assert len(users) == 0


@pytest.mark.parametrize("password", ["x" * 11, "aaaaaaaaaaaaaaa", "121212121212", "Password1234", "y" * 300])
def test_weak_passwords_are_refused(password):
    assert weakness("otto", password)


def test_a_user_has_few_sessions_and_the_oldest_goes_first():
    sessions = Sessions(900, 3600, Clock())
    tokens = [sessions.open("otto", Role.OPERATOR)[0] for _ in range(PER_USER_MAX + 2)]
    assert [sessions.find(token) is not None for token in tokens] == [False] * 2 + [True] * PER_USER_MAX
    assert sessions.find("") is None


def test_waits_are_bounded_and_forgotten_and_a_success_takes_its_own_attempt_back():
    clock = Clock()
    backoff = Backoff(2, 60.0, clock)
    assert [backoff.failed("a") for _ in range(9)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert 59 < backoff.wait_s("a") <= 60
    clock.shift_s += 3700
    assert backoff.failed("a") == 0.0
    backoff.succeeded("a", wholly=False)
    assert backoff.failed("a") == 0.0


def test_knocking_does_not_fill_the_log():
    kept, clock = [], Clock()
    trail = Trail(lambda *entry: kept.append(entry), clock)
    for _ in range(1000):
        trail.refused("unknown", "login", "refused", address="10.0.0.9")
    trail.did("otto", "login", "ok")
    assert len(kept) == REFUSALS_PER_MINUTE_MAX + 1
    clock.shift_s += 61
    trail.refused("unknown", "login", "refused", address="10.0.0.9")
    assert kept[-1][3]["left_out"] == 1000 - REFUSALS_PER_MINUTE_MAX


def test_commands_have_the_least_role_that_may_give_them():
    assert role_for("acknowledge") is Role.OPERATOR
    assert role_for("out_of_service") is Role.ENGINEER
    assert role_for("snapshot") is None


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("gateway.plant", False)],
)  # fmt: skip
def test_loopback_is_recognised(host, local):
    assert is_loopback(host) is local


async def test_the_command_asks_for_the_password_and_never_shows_it(page):
    folder = page.gateway.directory
    (folder / "gateway.toml").write_text(f'[gateway]\nname = "x"\nstate_dir = "{folder}"\n')

    async def andon(*words, typed=""):
        arguments = ["user", words[0], "--config", str(folder), *words[1:]]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments, typed)

    done = await andon("add", "anna", "--role", "operator", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert (done.exit_code, done.stdout.strip()) == (0, "anna may log in as operator")
    assert PASSWORD not in done.output
    assert (await page.visitor().login("anna")).status_code == 200
    listed = await andon("list")
    assert "anna" in listed.stdout
    assert "logged in 1 times" in listed.stdout
    done = await andon("passwd", "anna", "--password-stdin", typed="short\n")
    assert (done.exit_code, "shorter than 12" in done.output) == (1, True)
    assert (await andon("remove", "anna")).exit_code == 0
    assert (await andon("add", "anna", PASSWORD)).exit_code == 2, "a password is no argument"
