"""The strip line: real electricity of a steel plant drives it, with an inspection station at its end.

Real: power, reactive power, power factors, CO2, load type, working hours, the pictures. By rule: running above
IDLE_BELOW_KWH, one strip per KWH_PER_STRIP of the recording. Simulated: which strips are inspected, orders.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edge.simulator.machine import REASON_CODES, STATE_CODES, STATE_OF_REASON, Value
from edge.simulator.recording import Recording
from plant.events import DowntimeReason, MachineState

SAMPLES_PER_S: Final = 0.5
"""Recorded quarter hours per second of machine time."""
START_SAMPLE: Final = 32
"""08:15 of the first day: the plant has just started work."""
QUARTERS_PER_HOUR: Final = 4
IDLE_BELOW_KWH: Final = 10.0
KWH_PER_STRIP: Final = 110.0
INSPECTED_EVERY, INSPECTED_FIRST = 15, 3
"""Every 15th strip is looked at, the third of the run first; it was found suspicious, so it is scrap."""
STRIPS_PER_ORDER: Final = 80
PRODUCTS: Final = ("STRIP-2.0", "STRIP-3.5", "STRIP-5.0")
FIRST_ORDER: Final = 2201
ENERGY_AT_START_KWH: Final = 184_302.5
"""A meter is never new."""
LOAD_TYPES: Final = ("Light_Load", "Medium_Load", "Maximum_Load")


class StripLine:
    """energy: quarter hours; pictures: files for the inspection station."""

    name = "strip"
    counters = frozenset({"strips", "rejects", "energy"})

    def __init__(self, energy: Recording, pictures: Sequence[Path], rng: random.Random) -> None:
        self._energy = energy
        self._usage = energy.numbers("usage_kwh")
        self._pictures = [str(path) for path in pictures]
        rng.shuffle(self._pictures)
        self._position = float(START_SAMPLE)
        self._stopped: DowntimeReason | None = None
        self._strip_kwh = 0.0
        self._strips = 0
        self._made = 0
        self._rejects = 0
        self._meter_kwh = ENERGY_AT_START_KWH
        self._inspected = 0
        self._part = ""

    @property
    def sample(self) -> int:
        """Quarter hour of the recording that is shown now."""
        return int(self._position)

    def advance(self, elapsed_s: float) -> None:
        """Move on by `elapsed_s` seconds of machine time."""
        usage_kwh = self._usage[self.sample].item()
        self._meter_kwh += usage_kwh * QUARTERS_PER_HOUR * elapsed_s / 3600
        if self._state()[0] is MachineState.RUNNING:
            self._strip_kwh += usage_kwh * elapsed_s * SAMPLES_PER_S
            while self._strip_kwh >= KWH_PER_STRIP:
                self._strip_kwh -= KWH_PER_STRIP
                self._finish_strip()
        self._position = (self._position + elapsed_s * SAMPLES_PER_S) % self._energy.rows

    def _finish_strip(self) -> None:
        self._strips += 1
        self._made += 1
        if self._made % INSPECTED_EVERY == INSPECTED_FIRST:
            self._inspected += 1
            self._rejects += 1
            self._part = f"ST-{self._made:06}"

    def _state(self) -> tuple[MachineState, DowntimeReason | None]:
        if self._stopped is not None:
            return STATE_OF_REASON[self._stopped], self._stopped
        idle = self._usage[self.sample] < IDLE_BELOW_KWH
        return (MachineState.IDLE if idle else MachineState.RUNNING), None

    def values(self) -> Mapping[str, Value]:
        """Return what the PLC, the meter and the station show now."""
        state, reason = self._state()
        row = self._energy.at(self.sample)
        order = self._made // STRIPS_PER_ORDER
        picture = self._pictures[(self._inspected - 1) % len(self._pictures)] if self._inspected else ""
        return {
            "state_word": STATE_CODES[state],
            "reason_word": REASON_CODES[reason],
            "strips": self._strips,
            "rejects": self._rejects,
            "product": PRODUCTS[order % len(PRODUCTS)],
            "order": f"WO-{FIRST_ORDER + order}",
            "power": float(row["usage_kwh"]) * QUARTERS_PER_HOUR,
            "reactive_power_lagging": float(row["lagging_kvarh"]) * QUARTERS_PER_HOUR,
            "reactive_power_leading": float(row["leading_kvarh"]) * QUARTERS_PER_HOUR,
            "power_factor_lagging": float(row["lagging_power_factor"]) / 100,
            "power_factor_leading": float(row["leading_power_factor"]) / 100,
            "co2": float(row["co2_t"]) * 1000 * QUARTERS_PER_HOUR,
            "load_type": LOAD_TYPES.index(str(row["load_type"])),
            "energy": self._meter_kwh,
            "part_id": self._part,
            "picture": picture,
            "trigger": self._inspected,
            "verdict": "",
        }

    def stop(self, reason: DowntimeReason) -> None:
        """Stand still for a reason until `start`; the meter runs on."""
        self._stopped = reason

    def start(self) -> None:
        """Go on after `stop`."""
        self._stopped = None

    def reset(self, counter: str) -> None:
        """Set a counter to zero."""
        match counter:
            case "strips":
                self._strips = 0
            case "rejects":
                self._rejects = 0
            case _:
                self._meter_kwh = 0.0
