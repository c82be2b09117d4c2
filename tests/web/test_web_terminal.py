"""The terminal: what it shows, that it fits, and what a pipe gets instead."""

import asyncio
import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from web_gateway import alarm, device, machine, plain, plant

from edge.terminal import plain_line, print_status, ranked, shares, size, span, summary, watch
from edge.view import Snapshot


def screen(renderable, width=80, height=24):
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_the_summary_says_what_matters():
    text = screen(summary(plant(), "http://127.0.0.1:8080/", 24))
    for words in (
        "Data flows from 3 of 4 devices", "62/86 alive", "86 readings/s", "http://127.0.0.1:8080/", "running",
        "down breakdown", "108%!", "Bearing of the press is too hot", "0/24", "96.4 MB of 2.0 GB", "2 unacknowledged",
    ):  # fmt: skip
        assert words in text


def test_a_figure_that_rests_on_too_little_has_a_question_mark():
    snapshot = msgspec.structs.replace(plain(), machines=[machine("cnc", "a/b/c", uncertain=True)])
    assert "88%?" in screen(summary(snapshot))
    assert "cnc=running,88%?" in plain_line(snapshot)
    assert "?" not in plain_line(plant())


@pytest.mark.parametrize("height", [24, 30, 50])
@pytest.mark.parametrize("count", [0, 1, 3, 12, 100])
def test_the_summary_fits_the_screen(count, height):
    snapshot = msgspec.structs.replace(
        plant(),
        machines=[machine(f"m{i}", "a/b/c") for i in range(count)],
        alarms=[alarm(f"a{i}", message="hot " * 40) for i in range(count)],
        devices=[device(f"d{i}", "modbus", sentence="gone " * 40) for i in range(count)],
    )
    lines = screen(summary(snapshot, "http://127.0.0.1:8080/", height), 80, height).splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= 80
    assert ("and " in "".join(lines)) == (count >= 12 and not (count == 12 and height == 50))


@given(st.integers(0, 60), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_lines_are_shared_out_without_waste(room, wishes):
    given_lines = shares(room, wishes)
    assert all(min(1, wish) <= lines <= wish for lines, wish in zip(given_lines, wishes, strict=True))
    assert sum(given_lines) == max(min(room, sum(wishes)), sum(min(1, wish) for wish in wishes))


def test_the_full_status_cuts_nothing():
    snapshot = msgspec.structs.replace(plant(), alarms=[alarm(f"alarm{i}") for i in range(60)])
    text = screen(summary(snapshot), 160)
    assert "alarm59" in text
    assert "more alarms" not in text


def test_the_most_urgent_alarm_comes_first():
    alarms = [
        alarm("shelved", priority="critical", annunciated=False, state="G"),
        alarm("gone", priority="critical", active=False, state="D"),
        alarm("low", priority="low"),
        alarm("old", priority="critical", since=1),
        alarm("acknowledged", priority="critical", acknowledged=True),
        alarm("new", priority="critical", since=2),
    ]
    assert [a.alarm for a in ranked(alarms)] == ["new", "old", "acknowledged", "low", "gone", "shelved"]


def test_names_from_the_plant_are_never_markup():
    odd = msgspec.structs.replace(
        plant(), machines=[machine("[red]m[/red]", "a")], devices=[device("[/]", "[bold]", sentence="[/nothing]")]
    )
    text = screen(summary(odd, "", 24))
    assert "[red]m[/red]" in text
    assert "[/nothing]" in text


@pytest.mark.parametrize("snapshot", [plant(), plain()], ids=["plant", "plain"])
def test_a_pipe_gets_one_line(snapshot):
    line = plain_line(snapshot)
    assert "\n" not in line
    assert snapshot.sentence in line


async def test_watch_prints_lines_where_there_is_no_terminal():
    file = io.StringIO()
    task = asyncio.create_task(
        watch(plant, url="http://127.0.0.1:1/", console=Console(file=file, width=40), plain_period_s=0.01)
    )
    async with asyncio.timeout(5):
        while file.getvalue().count("\n") < 4:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    lines = file.getvalue().splitlines()
    assert lines[0] == "page http://127.0.0.1:1/"
    assert lines[1] == plain_line(plant())
    assert "\x1b" not in file.getvalue()


async def test_watch_refreshes_a_terminal_and_gives_the_screen_back():
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True)
    seen = 0

    def snapshot():
        nonlocal seen
        seen += 1
        return msgspec.structs.replace(plant(), gateway=f"beat{seen}")

    task = asyncio.create_task(watch(snapshot, period_s=0.01, console=console))
    async with asyncio.timeout(5):
        while seen < 3:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "beat2" in file.getvalue()
    assert file.getvalue().index("\x1b[?1049h") < file.getvalue().rindex("\x1b[?1049l")


def test_status_as_json_is_the_snapshot():
    console = Console(file=io.StringIO(), width=40)
    print_status(plant(), as_json=True, console=console)
    text = console.file.getvalue()
    assert json.loads(text)["gateway"] == "plant1"
    assert msgspec.json.decode(text, type=Snapshot) == plant()


def test_status_for_a_person():
    console = Console(file=io.StringIO(), width=100)
    print_status(plain(), console=console)
    assert "No data yet." in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (180_000, "2 d 2 h")]
)
def test_durations_in_words(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (5e13, "50.0 TB")]
)
def test_sizes_in_words(count, text):
    assert size(count) == text
