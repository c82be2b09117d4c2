"""An answer waits until its events are on disk, not longer than a person would, and says when they are not."""

from edge.answers import NOT_KEPT, WAIT_S_MAX, HeldAnswers
from edge.tick import Reply, Tick
from plant.batch import EMPTY
from plant.events import Audit
from plant.instant import NS_PER_S, Instant


def at(seconds: float) -> Instant:
    return Instant(int(1_795_000_000 * NS_PER_S + seconds * NS_PER_S), int(seconds * NS_PER_S))


def tick(seconds: float, command: str = "", *events: str, ok: bool = True) -> Tick:
    audits = tuple(Audit(id=key, time=0, asset="", user="anna", action="reset", outcome="ok") for key in events)
    replies = (Reply(command=command, origin="mqtt", ok=ok, code="ok"),) if command else ()
    return Tick(at(seconds), EMPTY, EMPTY, audits, replies)


class Heard(list[tuple[str, str]]):
    def take(self, replies: tuple[Reply, ...], _now: Instant) -> None:
        self.extend((reply.command, reply.message) for reply in replies)


def test_an_answer_comes_with_the_commit_of_the_last_of_its_events_and_in_order():
    heard = Heard()
    answers = HeldAnswers(heard.take)
    for n, command in enumerate(("a", "b"), 1):
        passed = answers.hold(tick(n, command, f"e{n}1", f"e{n}2"))
        assert passed.replies == ()
        assert [event.id for event in passed.events] == [f"e{n}1", f"e{n}2"]
    answers.committed([(1, "e11")], at(3))
    assert heard == []
    answers.committed([(2, "e12"), (3, "e21")], at(3))
    assert heard == [("a", "")]
    answers.committed([(4, "e22")], at(3))
    assert heard == [("a", ""), ("b", "")]


def test_an_answer_that_changed_nothing_goes_at_once():
    heard = Heard()
    answers = HeldAnswers(heard.take)
    assert len(answers.hold(tick(1, "snapshot")).replies) == 1
    answers.committed([(1, "x")], at(2))
    assert heard == []


def test_a_disk_that_hangs_is_said_in_the_answer_and_a_refusal_stays_one():
    heard = Heard()
    answers = HeldAnswers(heard.take)
    answers.hold(tick(1, "a", "e1"))
    answers.hold(tick(1, "b", "e2", ok=False))
    answers.hold(tick(1 + WAIT_S_MAX / 2))
    assert heard == []
    answers.hold(tick(1.1 + WAIT_S_MAX))
    assert heard == [("a", NOT_KEPT), ("b", "")]
    answers.committed([(1, "e1"), (2, "e2")], at(9))
    assert len(heard) == 2
