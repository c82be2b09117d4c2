"""kill -9 in mid-work: the stores open, nothing committed is lost, and the machine's counter agrees in the end."""

import os

from e2e_kill import COMMIT_S_MAX, prepare, run
from e2e_peers import Daemon, SimulatedPlant, Subscriber

CYCLES = int(os.environ.get("ANDON_KILL_CYCLES", "5"))


def test_nothing_committed_is_lost_however_often_the_gateway_is_killed(
    prepared: Daemon, plant: SimulatedPlant, scada: Subscriber
):
    prepare(prepared)
    books = run(prepared, plant, scada, CYCLES)
    assert books.cycles == CYCLES
    assert books.not_opened == []
    assert books.damaged == []
    assert books.lost_rows == []
    assert books.lost_events == []
    assert books.kept_not_told == [], "what the journal has, the broker was told"
    assert books.told_not_kept_age_s < COMMIT_S_MAX, "what left before it was kept is younger than one commit"
    assert books.counted > 0
    assert books.parts == books.counted, "the parts of all runs are those that the machine counted"
    assert prepared.noise() == []
    assert not [line for line in prepared.lines() if line["level"] in ("error", "critical")]
