"""The simulated plant as a child process on free ports: one line of JSON with the ports, then it runs until SIGTERM.

usage: python e2e_plant.py [speed [plc,...]]
"""

import asyncio
import json
import signal
import sys

from edge.simulator.plant import PLC_NAMES, PlcName, SimulatorOptions, run


async def main(speed: float, plcs: tuple[PlcName, ...]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    free = {f"{name}_port": 0 for name in ("cnc", "inspection", "press", "strip", "control")}
    options = SimulatorOptions(speed=speed, plcs=plcs, **free)
    await run(options, started=lambda ports: print(json.dumps(dict(ports)), flush=True))


try:
    chosen = tuple(name for name in PLC_NAMES if len(sys.argv) < 3 or name in sys.argv[2].split(","))
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, chosen))
except asyncio.CancelledError:
    sys.exit(0)
