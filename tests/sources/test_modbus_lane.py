"""The search for illegal addresses, against a model of a device: any holes, any limit on a request."""

from hypothesis import given
from hypothesis import strategies as st

from edge.sources.modbus_blocks import Block, Limits
from edge.sources.modbus_lane import RETRY_S_MAX, Lane
from edge.sources.modbus_points import ModbusPoint

SIZES = {"uint16": 1, "float32": 2, "float64": 4}
CYCLES_MAX = 60


def lane_of(values: list[tuple[int, str]], gap: int = 8) -> Lane:
    points = tuple(ModbusPoint(i, 1, "holding", a, None, kind, "ABCD", 100) for i, (a, kind) in enumerate(values))
    lane = Lane(1, 3, points, Limits(125, 2000, gap), 60.0)
    lane.plan()
    return lane


def cycle(lane: Lane, refuses, now: int = 0) -> tuple[set[int], int]:
    """Ask every block as the source does, without a budget; return the tags that were read, and how many requests."""
    work = [*lane.blocks, *lane.retries(now)]
    read: set[int] = set()
    requests = 0
    while work:
        block = work.pop(0)
        requests += 1
        if refuses(block):
            work = [*(lane.refuse(block, now, "exception 2") or ()), *work]
        else:
            lane.accept(block)
            read |= set(block.tags.tolist())
    lane.settle()
    return read, requests


@given(
    st.lists(st.tuples(st.integers(0, 300), st.sampled_from(list(SIZES))), min_size=1, max_size=60),
    st.sets(st.integers(0, 310), max_size=8),
    st.integers(4, 125),
)
def test_exactly_the_values_that_a_device_cannot_give_are_set_aside(values, holes, registers_max):
    def refuses(block: Block) -> bool:
        return block.count > registers_max or bool(holes & set(range(block.start, block.start + block.count)))

    lane = lane_of(values)
    illegal = {p.tag for p in lane.points if holes & set(range(p.offset, p.end))}
    for _ in range(CYCLES_MAX):
        read, _ = cycle(lane, refuses)
        assert read == {p.tag for p in lane.points} - illegal
        if not any(refuses(block) for block in lane.blocks):
            break
    assert not any(refuses(block) for block in lane.blocks)
    assert {p.tag for e in lane.quarantine.values() for p in e.block.points} == illegal


def test_the_search_is_logarithmic_for_one_illegal_address():
    lane = lane_of([(i, "uint16") for i in range(125)])
    _, requests = cycle(lane, lambda block: block.start <= 77 < block.start + block.count)
    assert requests <= 2 * 7 + 1
    cycle(lane, lambda block: False)
    assert [(b.start, b.count) for b in lane.blocks] == [(0, 77), (78, 47)]


def test_values_that_share_an_illegal_address_are_set_aside_together():
    lane = lane_of([(5, "uint16"), (5, "uint16"), (6, "uint16")])
    read, _ = cycle(lane, lambda block: block.start <= 5 < block.start + block.count)
    assert read == {2}
    assert [sorted(e.block.tags.tolist()) for e in lane.quarantine.values()] == [[0, 1]]


def test_the_pause_before_another_try_doubles_up_to_an_hour():
    lane = lane_of([(5, "uint16")])
    now = 0
    pauses = []
    for _ in range(12):
        cycle(lane, lambda block: True, now)
        (entry,) = lane.quarantine.values()
        pauses.append(entry.retry_s)
        now = entry.retry_at
    assert pauses[:4] == [60.0, 120.0, 240.0, 480.0]
    assert pauses[-1] == RETRY_S_MAX
