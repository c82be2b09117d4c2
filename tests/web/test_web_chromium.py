"""The page in a real browser: a person logs in, gives a stop its reason, acknowledges an alarm, asks in SQL."""

import asyncio
import os

import pytest
from argon2 import PasswordHasher
from web_browser import CHROMIUM, Browser
from web_gateway import MovingGateway

from edge.web.login import Gate
from edge.web.options import WebOptions
from edge.web.roles import Role
from edge.web.server import Web
from edge.web.users import Users

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="chromium: apt install chromium")
PASSWORD = "a sentence to remember"
STOP = "[...document.querySelectorAll('.stop')].find((e) => e.textContent.includes('down: no reason yet'))"


@pytest.fixture
async def served(tmp_path):
    gateway = MovingGateway(tmp_path)
    web = Web(gateway, WebOptions(port=0, stream_period_ms=200), tmp_path)
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    web.gate = Gate(Users(tmp_path / "users.json", cheap), web.options, gateway.audit)
    web.gate.users.add("erik", Role.ENGINEER, PASSWORD, 0)
    web.open()
    task = asyncio.create_task(web.run())
    yield web, gateway
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    web.close()


async def log_in(browser):
    await browser.type("erik")
    await browser.tap(
        "document.getElementById('login-password')",
        "document.activeElement === document.getElementById('login-password')",
    )
    await browser.type(PASSWORD)
    await browser.key("Enter", 13)
    await browser.until("document.getElementById('user').textContent === 'erik, engineer'")


async def test_a_person_works_at_the_page(served):
    web, gateway = served
    async with Browser(1440, 900) as browser:
        await browser.open(web.url)
        await browser.until("document.body?.dataset.contact === 'live'")
        await browser.until("document.querySelectorAll('#trend-plot canvas').length === 1")
        await browser.until(f"Boolean({STOP})")

        # First tap, login in between, second tap.
        await browser.tap(STOP, "document.getElementById('login').open")
        await log_in(browser)
        await browser.until("document.getElementById('reason').open")
        await browser.tap(
            "document.querySelector('[data-reason=no_material]')", "!document.getElementById('reason').open"
        )
        async with asyncio.timeout(10):
            while not gateway.commands:
                await asyncio.sleep(0.05)
        (command,) = gateway.commands
        assert (command.name, command.user) == ("correct", "erik")
        assert (command.arguments["reason"], command.arguments["state"]) == ("no_material", "down")
        assert isinstance(command.arguments["start"], int)

        acknowledged = "document.getElementById('told').textContent.includes('is acknowledged')"
        await browser.tap("document.querySelector('#alarms [data-field=acknowledge]')", acknowledged)
        assert gateway.commands[1].arguments["occurrence"] == "press.bearing_hot-1"

        rows = "document.querySelectorAll('#sql-rows tr').length === 5"
        await browser.tap("document.getElementById('sql-run')", rows)
        await browser.tap("document.getElementById('login-open')", "document.getElementById('user').textContent === ''")
        assert await browser.run("document.getElementById('sql').hidden")
        assert browser.complaints == []


async def test_a_phone_has_room_for_everything_and_for_fingers(served):
    web, _ = served
    async with Browser(390, 800, dark=True, touch=True) as browser:
        await browser.open(web.url)
        await browser.until("document.querySelectorAll('.stop').length > 3")
        await browser.until("document.querySelectorAll('#alarms tr').length > 3")
        assert await browser.run("document.documentElement.scrollWidth") <= 390
        small = await browser.run(
            "[...document.querySelectorAll('button, nav a, input, select')].filter((e) => e.checkVisibility() && "
            "!e.closest('.pieces') && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"
        )
        assert small == []
        assert browser.complaints == []
