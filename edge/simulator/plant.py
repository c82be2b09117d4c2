"""The simulated plant: three machines, four PLCs with real servers on loopback, one loop that drives them.

Owns the composition and the faults; leaves each machine to its module and each protocol to its PLC. Runs in one event
loop, alone (`run`) or inside a test (`Plant`). Time comes from the loop here; machines only see seconds.
"""

import asyncio
import contextlib
import functools
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from edge import clock
from edge.errors import Refused
from edge.simulator import faults as f
from edge.simulator import layout
from edge.simulator.control import ControlLine, ask
from edge.simulator.finishing import StripLine
from edge.simulator.machine import Machine
from edge.simulator.milling import MillingCell
from edge.simulator.modbus_plc import ModbusPlc
from edge.simulator.opcua_plc import OpcuaPlc
from edge.simulator.plc import Plc, convert
from edge.simulator.pressing import PressLine
from edge.simulator.recording import RECORDINGS_DIR, pictures, read
from plant.instant import NS_PER_MS, NS_PER_S

PlcName = Literal["cnc", "press", "strip", "inspection"]
PLC_NAMES: tuple[PlcName, ...] = get_args(PlcName)

ELAPSED_S_MAX = 1.0
"""A step is never longer: after a stall of the host the plant goes on where it was, it does not jump."""


class SimulatorOptions(BaseModel):
    """The simulated plant. Port 0 = any free one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address that all servers bind; they have no authentication")
    cnc_port: int = Field(48400, ge=0, le=65535, description="OPC UA server of the CNC cell")
    inspection_port: int = Field(48401, ge=0, le=65535, description="OPC UA server of the inspection station")
    press_port: int = Field(15020, ge=0, le=65535, description="Modbus TCP server of the press")
    strip_port: int = Field(15021, ge=0, le=65535, description="Modbus TCP server of the strip line and its meter")
    control_port: int = Field(48499, ge=0, le=65535, description="control line that takes faults")
    speed: float = Field(1.0, ge=0, le=100, description="machine seconds per second; 0 = the machines stand still")
    period_ms: int = Field(100, ge=10, le=10_000, description="how often the PLCs show new values")
    seed: int = Field(1, ge=0, description="of everything that is drawn by chance")
    plcs: tuple[PlcName, ...] = Field(PLC_NAMES, min_length=1, description="the PLCs that run")
    recordings_dir: Path = Field(RECORDINGS_DIR, description="folder with the recordings")


class Plant:
    """Use `async with Plant(options) as plant`, or `start` and `stop`. Ports are known after the start."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.machines: dict[str, Machine] = {}
        self.plcs: dict[str, Plc] = {}
        self._machine_of: dict[str, str] = {}
        self._control = ControlLine(self._request, options.host, options.control_port)
        self._loop: asyncio.Task[None] | None = None
        self._later: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def __aenter__(self) -> "Plant":
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Read the recordings and start every server. Raises ConfigError or Unreachable."""
        self._build()
        for plc in self.plcs.values():
            await plc.start()
        await self.step(0.0)
        await self._control.start()
        self._loop = asyncio.create_task(self._drive(), name="simulated plant")

    def _build(self) -> None:
        options, folder = self.options, self.options.recordings_dir
        milling, energy = read(folder / "milling/milling.parquet"), read(folder / "energy/energy.parquet")
        cnc = MillingCell(milling, read(folder / "milling/runs.parquet"))
        press = PressLine(read(folder / "bearing/bearing.parquet"), random.Random(f"press {options.seed}"))  # noqa: S311
        seed = random.Random(f"strip {options.seed}")  # noqa: S311
        strip = StripLine(energy, pictures(folder / "surface"), seed)
        self.machines = {machine.name: machine for machine in (cnc, press, strip)}
        host = options.host
        plcs: Sequence[Plc] = (
            OpcuaPlc("cnc", layout.CNC_URI, layout.CNC_NODES, host, options.cnc_port),
            ModbusPlc("press", layout.PRESS_REGISTERS, host, options.press_port),
            ModbusPlc("strip", layout.STRIP_REGISTERS, host, options.strip_port),
            OpcuaPlc("inspection", layout.INSPECTION_URI, layout.INSPECTION_NODES, host, options.inspection_port),
        )
        self.plcs = {plc.name: plc for plc in plcs if plc.name in options.plcs}
        self._locks = {name: asyncio.Lock() for name in self.plcs}
        self._machine_of = {"cnc": "cnc", "press": "press", "strip": "strip", "inspection": "strip"}

    async def stop(self) -> None:
        """Stop everything; idempotent."""
        tasks = [*self._later, *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._loop = None
        await self._control.stop()
        for plc in self.plcs.values():
            await plc.stop()

    @property
    def ports(self) -> dict[str, int]:
        """Port of each PLC and of the control line ("control")."""
        return {name: plc.port for name, plc in self.plcs.items()} | {"control": self._control.port}

    async def _drive(self) -> None:
        period_ns = self.options.period_ms * NS_PER_MS
        before = due = clock.now().monotonic
        while True:
            due += period_ns
            now = clock.now().monotonic
            due = max(due, now)
            await asyncio.sleep((due - now) / NS_PER_S)
            now = clock.now().monotonic
            elapsed_s = min((now - before) / NS_PER_S, ELAPSED_S_MAX)
            before = now
            await self.step(elapsed_s * self.options.speed)

    async def step(self, elapsed_s: float) -> None:
        """Move every machine on by `elapsed_s` seconds of machine time and publish what the PLCs show."""
        shown = {}
        for name, machine in self.machines.items():
            machine.advance(elapsed_s)
            shown[name] = machine.values()
        time = clock.now().utc
        for name, plc in self.plcs.items():
            # A PLC that is being restarted shows nothing; the others must not wait for it.
            if not self._locks[name].locked():
                async with self._locks[name]:
                    await plc.publish(shown[self._machine_of[name]], time)

    async def fault(self, fault: str, **arguments: Any) -> str:
        """Break something, or mend it; return a sentence that says what happened. Raises Refused.

        The faults and their arguments are the classes of `edge.simulator.faults`.
        """
        return await self._request({"fault": fault, **arguments})

    async def _request(self, request: dict[str, Any]) -> str:
        sentence = await self._apply(f.parse_fault(request))
        await self.step(0.0)
        return sentence

    async def _apply(self, fault: f.Fault) -> str:
        match fault:
            case f.StopMachine():
                self._machine(fault.machine).stop(fault.reason)
                return f"{fault.machine} stands: {fault.reason}"
            case f.StartMachine():
                self._machine(fault.machine).start()
                return f"{fault.machine} goes on"
            case f.ResetCounter():
                return self._reset(fault.value)
            case f.Freeze() | f.Unfreeze() | f.SetValue() | f.UnsetValue():
                return self._change_values(fault)
            case f.Cut() | f.Restore() | f.ShiftClock() | f.Restart() | f.Exceptions():
                plc = self._plc(fault.plc)
                async with self._locks[plc.name]:
                    return await self._change_plc(plc, fault)
            case f.ListPlant():
                return json.dumps({name: sorted(plc.names) for name, plc in self.plcs.items()})

    def _reset(self, value: str) -> str:
        name, _, counter = value.partition(".")
        machine = self._machine(name)
        if counter not in machine.counters:
            raise Refused(f"{value} is no counter; {name} has {', '.join(sorted(machine.counters))}")
        machine.reset(counter)
        return f"{value} is 0"

    def _change_values(self, fault: f.Freeze | f.Unfreeze | f.SetValue | f.UnsetValue) -> str:
        plc, names = self._values(fault.value)
        match fault:
            case f.Freeze():
                plc.faults.frozen.update(names)
                return f"{fault.value} is frozen"
            case f.Unfreeze():
                plc.faults.frozen.difference_update(names)
                return f"{fault.value} moves again"
            case f.SetValue():
                values = self.machines[self._machine_of[plc.name]].values()
                plc.faults.forced.update((name, convert(fault.to, values[name])) for name in names)
                return f"{fault.value} says {fault.to}"
            case f.UnsetValue():
                for name in names:
                    plc.faults.forced.pop(name, None)
                return f"{fault.value} says what the machine does"

    async def _change_plc(self, plc: Plc, fault: f.Cut | f.Restore | f.ShiftClock | f.Restart | f.Exceptions) -> str:
        match fault:
            case f.Cut():
                await plc.cut()
                if fault.seconds is not None:
                    self._after(fault.seconds, plc, plc.restore)
                return f"{plc.name} is cut" + (f" for {fault.seconds:g} s" if fault.seconds else " until restored")
            case f.Restore():
                await plc.restore()
                return f"{plc.name} listens again"
            case f.ShiftClock():
                if not isinstance(plc, OpcuaPlc):
                    raise Refused(f"{plc.name} speaks Modbus, which has no timestamps")
                plc.faults.clock_offset_ns = int(fault.seconds * NS_PER_S)
                return f"the clock of {plc.name} is {fault.seconds:+g} s off"
            case f.Restart():
                return await self._restart(plc, fault)
            case f.Exceptions():
                self._check_names(plc, fault.values)
                plc.answer_exceptions(fault.values)
                return f"{plc.name}: {', '.join(fault.values) or 'nothing'} answers with exceptions"

    async def _restart(self, plc: Plc, fault: f.Restart) -> str:
        self._check_names(plc, fault.without)
        if fault.namespace_shift and not isinstance(plc, OpcuaPlc):
            raise Refused(f"{plc.name} speaks Modbus, which has no namespaces; only its registers can go missing")
        changed = f" without {', '.join(fault.without)}" if fault.without else ""
        changed += f", its namespace index moved by {fault.namespace_shift}" if fault.namespace_shift else ""
        restart = functools.partial(plc.restart, fault.without, fault.namespace_shift)
        if not fault.seconds:
            await restart()
            return f"{plc.name} was restarted{changed}"
        await plc.cut()
        self._after(fault.seconds, plc, restart)
        return f"{plc.name} is off; it starts in {fault.seconds:g} s{changed}"

    def _after(self, seconds: float, plc: Plc, change: Callable[[], Awaitable[None]]) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            async with self._locks[plc.name]:
                await change()

        task = asyncio.create_task(later(), name=f"back: {plc.name}")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _machine(self, name: str) -> Machine:
        if name not in self.machines:
            raise Refused(f"no machine {name!r}; there are {', '.join(self.machines)}")
        return self.machines[name]

    def _plc(self, name: str) -> Plc:
        if name not in self.plcs:
            raise Refused(f"no PLC {name!r}; there are {', '.join(self.plcs)}")
        return self.plcs[name]

    def _values(self, value: str) -> tuple[Plc, tuple[str, ...]]:
        name, _, member = value.partition(".")
        plc = self._plc(name)
        if member == "*":
            return plc, tuple(plc.names)
        self._check_names(plc, (member,))
        return plc, (member,)

    @staticmethod
    def _check_names(plc: Plc, names: Sequence[str]) -> None:
        for name in names:
            if name not in plc.names:
                raise Refused(f"{plc.name} has no value {name!r}; it has {', '.join(plc.names)}")


async def run(options: SimulatorOptions, started: Callable[[Mapping[str, int]], None] | None = None) -> None:
    """Run the plant until cancelled. started: told the ports once all servers listen.

    Raises ConfigError or Unreachable at the start.
    """
    for library in ("asyncua", "pymodbus"):
        # Both log every client that goes away as an error; here that is the point.
        logging.getLogger(library).setLevel(logging.CRITICAL)
    async with Plant(options) as plant:
        if started is not None:
            started(plant.ports)
        await asyncio.Event().wait()


async def send_fault(options: SimulatorOptions, fault: str, **arguments: Any) -> str:
    """Tell a running simulator to break something; return its sentence. Raises Unreachable or Refused.

    "help" is answered here, with the list of faults and their arguments.
    """
    if fault == "help":
        return f.describe_faults()
    return await ask(options.host, options.control_port, {"fault": fault, **arguments})
