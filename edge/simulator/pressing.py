"""The press: a real temperature recording up to its failures, and a simulated press around it.

Real: the temperature. By rule: vibration (derived, see the recording's SOURCE.md), standing still while the
temperature is below DOWN_BELOW. Simulated: strokes, rejects, pressure, short stops, products.
"""

import math
import random
from collections.abc import Mapping
from typing import Final

import numpy as np

from edge.simulator.machine import PRESS_STATE_CODES, REASON_CODES, STATE_OF_REASON, Value
from edge.simulator.recording import Recording
from plant.events import DowntimeReason, MachineState

SAMPLES_PER_S: Final = 4.0
"""Recorded samples (5 minutes each) per second of machine time."""
START_SEGMENT: Final = 2
"""The stretch that plays first: its failure comes two minutes after the start."""
PLANNED_SEGMENT: Final = 1
"""The stretch whose stop the source calls a planned shutdown."""
DOWN_BELOW, UP_ABOVE = 60.0, 68.0
"""The press stands below the first and runs again above the second (units of the recording)."""
RESTING_VIBRATION: Final = 0.2

STROKES_PER_S: Final = 0.75
REJECTED_SHARE, REJECTED_SHARE_ROUGH = 0.01, 0.25
"""Share of rejects in quiet running and above ROUGH_VIBRATION."""
ROUGH_VIBRATION: Final = 6.0
COUNTER_MODULO: Final = 2**32
MATERIAL_EVERY_S, MATERIAL_FOR_S = (60.0, 180.0), (4.0, 10.0)
"""Every so often the coil runs out for a short while: (least, most) seconds."""
STROKES_PER_ORDER: Final = 150
CHANGEOVER_S: Final = 6.0
PRODUCTS: Final = ("BRACKET-7", "BRACKET-9")
FIRST_ORDER: Final = 8101
PRESSURE_REST, PRESSURE_STROKE = 35.0, 175.0
"""Hydraulic pressure in bar between strokes and the rise of a stroke."""
LEAK_S: Final = 5.0
"""Time constant with which the pressure falls while the press stands."""


class PressLine:
    """bearing: samples with `segment`, `temperature`, `vibration`."""

    name = "press"
    counters = frozenset({"strokes", "rejects"})

    def __init__(self, bearing: Recording, rng: random.Random) -> None:
        self._rng = rng
        self._temperature = bearing.numbers("temperature")
        self._vibration = bearing.numbers("vibration")
        self._segment = bearing.numbers("segment")
        self._position = float(np.flatnonzero(self._segment == START_SEGMENT)[0])
        self._cold = False
        self._stopped: DowntimeReason | None = None
        self._pause_s = 0.0
        self._pause_reason: DowntimeReason | None = None
        self._material_s = rng.uniform(*MATERIAL_EVERY_S)
        self._phase = 0.0
        self._pressure = PRESSURE_REST
        self._strokes = 0
        self._made = 0
        self._rejects = 0

    @property
    def sample(self) -> int:
        """Sample of the recording that is shown now."""
        return int(self._position)

    def advance(self, elapsed_s: float) -> None:
        """Move on by `elapsed_s` seconds of machine time."""
        self._position = (self._position + elapsed_s * SAMPLES_PER_S) % len(self._temperature)
        temperature = self._temperature[self.sample]
        self._cold = temperature < (UP_ABOVE if self._cold else DOWN_BELOW)
        if self._pause_s > 0:
            self._pause_s = max(0.0, self._pause_s - elapsed_s)
        if self._state()[0] is not MachineState.RUNNING:
            self._pressure *= math.exp(-elapsed_s / LEAK_S)
            return
        self._press(elapsed_s)

    def _press(self, elapsed_s: float) -> None:
        self._phase += elapsed_s * STROKES_PER_S
        finished = int(self._phase)
        self._phase -= finished
        rough = self._vibration[self.sample] > ROUGH_VIBRATION
        share = REJECTED_SHARE_ROUGH if rough else REJECTED_SHARE
        for _ in range(finished):
            self._strokes = (self._strokes + 1) % COUNTER_MODULO
            self._rejects += self._rng.random() < share
            self._made += 1
        self._pressure = PRESSURE_REST + PRESSURE_STROKE * math.sin(math.pi * self._phase) ** 2
        self._material_s -= elapsed_s
        if finished and self._made % STROKES_PER_ORDER == 0:
            self._pause(DowntimeReason.CHANGEOVER, CHANGEOVER_S)
        elif self._material_s <= 0:
            self._material_s = self._rng.uniform(*MATERIAL_EVERY_S)
            self._pause(DowntimeReason.NO_MATERIAL, self._rng.uniform(*MATERIAL_FOR_S))

    def _pause(self, reason: DowntimeReason, seconds: float) -> None:
        self._pause_reason, self._pause_s = reason, seconds

    def _state(self) -> tuple[MachineState, DowntimeReason | None]:
        reason = self._stopped
        if reason is None and self._cold:
            planned = self._segment[self.sample] == PLANNED_SEGMENT
            reason = DowntimeReason.PLANNED_MAINTENANCE if planned else DowntimeReason.BREAKDOWN
        if reason is None and self._pause_s > 0:
            reason = self._pause_reason
        return (MachineState.RUNNING, None) if reason is None else (STATE_OF_REASON[reason], reason)

    def values(self) -> Mapping[str, Value]:
        """Return what the PLC shows now; `bearing_temperature` is the raw number of the recording."""
        state, reason = self._state()
        running = state is MachineState.RUNNING
        order = self._made // STROKES_PER_ORDER
        return {
            "state_word": PRESS_STATE_CODES[state],
            "reason_word": REASON_CODES[reason],
            "strokes": self._strokes,
            "rejects": self._rejects,
            "bearing_temperature": self._temperature[self.sample].item(),
            "vibration": self._vibration[self.sample].item() if running else RESTING_VIBRATION,
            "pressure": self._pressure,
            "motor_on": running,
            "guard_closed": state is not MachineState.MAINTENANCE,
            "lubrication_ok": state is not MachineState.DOWN,
            "product": PRODUCTS[order % len(PRODUCTS)],
            "order": f"WO-{FIRST_ORDER + order}",
        }

    def stop(self, reason: DowntimeReason) -> None:
        """Stand still for a reason until `start`; the recording runs on."""
        self._stopped = reason

    def start(self) -> None:
        """Go on after `stop`."""
        self._stopped = None

    def reset(self, counter: str) -> None:
        """Set a counter to zero."""
        if counter == "strokes":
            self._strokes = 0
        else:
            self._rejects = 0
