"""`andon demo`: the simulated plant in a process of its own, a broker on loopback, and the gateway against them."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edge.app import configure_logging, open_state_dir, serve
from edge.broker import embedded
from edge.config import load
from edge.errors import Unreachable

PLANT_START_S_MAX = 30.0


def run_demo(folder: Path, seconds: float | None) -> None:
    """Run until Ctrl-C, SIGTERM or the end of `seconds`. Raises ConfigError or Unreachable."""
    config = load(folder)
    open_state_dir(config)
    if sys.stdout.isatty():
        # The screen belongs to the summary; what the gateway logs goes beside its data.
        log = (config.state_dir / "andon.log").open("a", buffering=1)
        os.dup2(log.fileno(), sys.stderr.fileno())
    configure_logging(config.file.gateway.log_level)
    command = [sys.executable, "-m", "edge.cli", "simulate"]
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        command = [setpriv, "--pdeathsig", "TERM", *command]  # it ends with us even if we are killed
    # A session of its own: Ctrl-C is for the gateway, which ends the plant last.
    plant = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        asyncio.run(_run(folder, plant, seconds))
    finally:
        plant.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            plant.wait(5)
        if plant.poll() is None:
            plant.kill()


async def _run(folder: Path, plant: subprocess.Popen[str], seconds: float | None) -> None:
    config = load(folder)
    try:
        first = await asyncio.wait_for(asyncio.to_thread(_first_line, plant), PLANT_START_S_MAX)
    except TimeoutError as error:
        raise Unreachable(f"the simulated plant did not start within {PLANT_START_S_MAX:g} s") from error
    if not first:
        raise Unreachable("the simulated plant ended at once: is another one running on the same ports?")
    broker = embedded(config.state_dir, config.file.mqtt.port)
    await broker.start()
    mqtt = config.file.mqtt.model_copy(update={"protocol": broker.protocol})
    config = dataclasses.replace(config, file=config.file.model_copy(update={"mqtt": mqtt}))
    try:
        gateway = asyncio.create_task(serve(config, watch=True))
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), 15)
        await gateway
    finally:
        await broker.stop()


def _first_line(plant: subprocess.Popen[str]) -> str:
    return plant.stdout.readline() if plant.stdout else ""
