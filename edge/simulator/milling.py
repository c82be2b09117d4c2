"""The CNC cell: replays real milling runs, one run per part, with loading and changeover between them.

Real: every process value, which run is scrap, and that the machine stops when a run was not finalized.
Simulated: the order of the runs, loading and changeover times, order numbers.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from edge.simulator.machine import REASON_CODES, STATE_CODES, STATE_OF_REASON, Value
from edge.simulator.recording import Recording
from plant.events import DowntimeReason, MachineState

ROWS_PER_S: Final = 80.0
"""Recorded rows (100 ms each) per second of machine time: eight times as fast as it was, a part about every 25 s."""
LOADING_S: Final = 3.0
CHANGEOVER_S: Final = 6.0
BREAKDOWN_S: Final = 8.0
IDLE_ROWS: Final = 20
"""While nothing is machined the last rows of the run are shown to and fro: drives at rest still report noise."""
PLAYLIST: Final = (1, 1, 4, 1, 2, 2, 8, 2, 11, 13, 14, 17, 11, 13, 14, 17)
"""Good runs twice in a round, so that scrap is 2 of 16 parts and not 2 of 8."""
FIRST_ORDER: Final = 4711


class MillingCell:
    """machining: rows of 100 ms with `run`; runs: one row per run with its labels."""

    name = "cnc"
    counters = frozenset({"parts", "rejects"})

    def __init__(self, machining: Recording, runs: Recording) -> None:
        numbers = machining.numbers("run")
        self._machining = machining
        self._columns = [name for name in machining.columns if name != "run"]
        self._first = {int(run): int(np.flatnonzero(numbers == run)[0]) for run in np.unique(numbers)}
        self._count = {int(run): int((numbers == run).sum()) for run in np.unique(numbers)}
        self._labels = {int(runs.at(i)["run"]): runs.at(i) for i in range(runs.rows)}
        self._entry = 0
        self._position = 0.0
        self._idle = 0.0
        self._waiting_s = 0.0
        self._state = MachineState.RUNNING
        self._reason: DowntimeReason | None = None
        self._stopped: DowntimeReason | None = None
        self._order = FIRST_ORDER
        self._parts = 0
        self._rejects = 0

    @property
    def run(self) -> int:
        """Number of the run in the machine."""
        return PLAYLIST[self._entry]

    @property
    def row(self) -> int:
        """Row of the recording that is shown now."""
        first, count = self._first[self.run], self._count[self.run]
        if self._waiting_s > 0 or self._stopped is not None:
            if self._position >= count:
                last, back = count - 1, IDLE_ROWS - 1
            else:
                last, back = int(self._position), min(IDLE_ROWS - 1, int(self._position))
            step = int(self._idle) % (2 * back) if back else 0
            return first + last - (step if step <= back else 2 * back - step)
        return first + min(int(self._position), count - 1)

    def advance(self, elapsed_s: float) -> None:
        """Move on by `elapsed_s` seconds of machine time."""
        if self._stopped is not None:
            self._idle += elapsed_s * ROWS_PER_S
            return
        while elapsed_s > 0:
            elapsed_s = self._wait(elapsed_s) if self._waiting_s > 0 else self._machine(elapsed_s)

    def _machine(self, elapsed_s: float) -> float:
        """Machine until the run ends; return the seconds that are left."""
        count = self._count[self.run]
        needed_s = (count - self._position) / ROWS_PER_S
        if elapsed_s < needed_s:
            self._position += elapsed_s * ROWS_PER_S
            return 0.0
        self._position = float(count)
        self._idle = 0.0
        label = self._labels[self.run]
        self._parts += 1
        self._rejects += not label["passed"]
        if not label["finalized"]:
            self._pause(MachineState.DOWN, DowntimeReason.BREAKDOWN, BREAKDOWN_S)
        elif self._product(self._entry + 1) != self._product(self._entry):
            self._pause(MachineState.SETUP, DowntimeReason.CHANGEOVER, CHANGEOVER_S)
        else:
            self._pause(MachineState.SETUP, None, LOADING_S)
        return elapsed_s - needed_s

    def _pause(self, state: MachineState, reason: DowntimeReason | None, seconds: float) -> None:
        self._state, self._reason, self._waiting_s = state, reason, seconds

    def _wait(self, elapsed_s: float) -> float:
        """Wait for the next part; return the seconds that are left."""
        taken = min(elapsed_s, self._waiting_s)
        self._waiting_s -= taken
        self._idle += taken * ROWS_PER_S
        if self._waiting_s <= 0:
            before = self._product(self._entry)
            self._entry = (self._entry + 1) % len(PLAYLIST)
            self._order += self._product(self._entry) != before
            self._position = 0.0
            self._state, self._reason = MachineState.RUNNING, None
        return elapsed_s - taken

    def _product(self, entry: int) -> str:
        feed = self._labels[PLAYLIST[entry % len(PLAYLIST)]]["feed_rate_set"]
        return f"S-BLOCK-F{int(feed):02}"

    def values(self) -> Mapping[str, Value]:
        """Return what the PLC shows now."""
        row = self._machining.at(self.row)
        label = self._labels[self.run]
        product = self._product(self._entry)
        state, reason = self._state, self._reason
        if self._stopped is not None:
            state, reason = STATE_OF_REASON[self._stopped], self._stopped
        shown: dict[str, Value] = {name: row[name] for name in self._columns}
        shown["line"] = int(row["line"])
        shown.update(
            state_word=STATE_CODES[state],
            reason_word=REASON_CODES[reason],
            parts=self._parts,
            rejects=self._rejects,
            program=f"{product}.NC",
            order=f"WO-{self._order}",
            product=product,
            feed_rate_set=label["feed_rate_set"],
            clamp_pressure=label["clamp_pressure"],
            workpiece_lost=self._state is MachineState.DOWN and not label["finalized"],
        )
        return shown

    def stop(self, reason: DowntimeReason) -> None:
        """Stand still for a reason until `start`."""
        self._stopped = reason
        self._idle = 0.0

    def start(self) -> None:
        """Go on after `stop`."""
        self._stopped = None

    def reset(self, counter: str) -> None:
        """Set a counter to zero."""
        if counter == "parts":
            self._parts = 0
        else:
            self._rejects = 0
