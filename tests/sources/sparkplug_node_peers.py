"""What the tests of the Sparkplug source stand on: an edge node of MQTT.js and Eclipse Tahu's codec, in Node."""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.sources.sparkplug import SparkplugSource, SparkplugSourceOptions, parse_metric
from plant.texts import Texts

PEER = Path(__file__).parents[1] / "peers" / "sparkplug"
DEADLINE_S = 20.0


def installed_or_skip() -> None:
    missing = [] if (PEER / "node_modules").is_dir() else [str(PEER / "node_modules")]
    missing += [] if shutil.which("node") else ["the program node"]
    if missing:
        what = f"{' and '.join(missing)} is missing; install Node 20 and run: npm ci --prefix {PEER}"
        if os.environ.get("CI"):
            pytest.fail(what)
        pytest.skip(what)


class JsNode:
    """A running edge node; `say` gives it a command, `heard` waits until it has told something."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    def say(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def heard(self, **event: Any) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while event not in self.told:
                line = await self.process.stdout.readline()
                assert line, f"the edge node ended; it told {self.told}"
                self.told.append(json.loads(line))


@contextlib.asynccontextmanager
async def js_node(
    port: int, births: dict[str, list[dict[str, Any]]], group: str = "G", node: str = "E"
) -> AsyncIterator[JsNode]:
    installed_or_skip()
    arguments = (str(PEER / "node.js"), str(port), group, node, json.dumps(births))
    process = await asyncio.create_subprocess_exec(
        "node", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        running = JsNode(process)
        await running.heard(born=1)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


def sparkplug_source(port: int, rows: dict[int, str], texts: Texts | None = None, **more: Any) -> SparkplugSource:
    """A source of the tags of `rows`: index -> address, with "!" in front for a text."""
    fields = {"type": "sparkplug", "name": "cell", "group_id": "G", "port": port, "connect_timeout_s": 2, **more}
    points = [
        parse_metric(tag, address.removeprefix("!"), "string" if address[0] == "!" else "")
        for tag, address in rows.items()
    ]
    return SparkplugSource(SparkplugSourceOptions(**fields), points, texts or Texts())
