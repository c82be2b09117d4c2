import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.outlets.live import VALUES_PER_MESSAGE_MAX, LiveValues
from edge.outlets.topics import Topics
from plant.batch import Batch, of_rows
from plant.tags import Tag, TagTable
from plant.texts import Texts

S = 1_000_000_000
TOPICS = Topics("", "E", "S", "g")


def live(*tags: Tag) -> LiveValues:
    return LiveValues("g", TOPICS, TagTable(tags), Texts(), 60 * S)


def told(values: LiveValues, monotonic: int = 1) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in values.messages(0, monotonic)]


def test_of_values_that_come_late_the_newest_stays() -> None:
    values = live(Tag(name="x", index=0, asset="a"))
    values.offer(of_rows([(0, 10, 1.0, 192)]))
    values.offer(of_rows([(0, 5, 2.0, 192)]))
    assert told(values)[0]["values"]["x"]["value"] == 1.0
    assert values.superseded == 1


def test_a_tag_that_the_table_does_not_know_is_passed_over() -> None:
    values = live(Tag(name="x", index=0, asset="a"))
    values.offer(of_rows([(7, 10, 1.0, 192), (0, 10, 2.0, 192)]))
    assert list(told(values)[0]["values"]) == ["x"]


def test_a_change_and_back_between_two_messages_is_not_told() -> None:
    values = live(Tag(name="x", index=0, asset="a"))
    values.offer(of_rows([(0, 1, 1.0, 192)]))
    assert len(told(values)) == 1
    values.offer(of_rows([(0, 2, 2.0, 192), (0, 3, 1.0, 192)]))
    assert told(values, 2) == []
    assert (values.superseded, values.unchanged) == (1, 1)


def test_everything_is_told_again_with_units_after_the_refresh_time() -> None:
    values = live(Tag(name="x", index=0, asset="a", unit="Cel"), Tag(name="never", index=1, asset="a"))
    values.offer(of_rows([(0, 1, 1.0, 192)]))
    assert told(values, 1)[0]["complete"]
    assert told(values, 30 * S) == []
    again = told(values, 61 * S)
    assert [list(m["values"]) for m in again] == [["x"]]
    assert again[0]["values"]["x"]["unit"] == "Cel"


def test_what_a_congested_link_did_not_take_stays_due() -> None:
    count = VALUES_PER_MESSAGE_MAX + 10
    values = live(*(Tag(name=f"t{n}", index=n, asset="a") for n in range(count)))
    values.offer(of_rows([(n, 1, float(n), 192) for n in range(count)]))
    first = next(values.messages(0, 1))
    assert len(json.loads(first.payload)["values"]) == VALUES_PER_MESSAGE_MAX
    rest = told(values, 2)
    assert [list(m["values"]) for m in rest] == [[f"t{n}" for n in range(VALUES_PER_MESSAGE_MAX, count)]]


def test_a_new_table_keeps_the_values_of_the_tags_that_stay() -> None:
    values = live(Tag(name="x", index=0, asset="a"), Tag(name="y", index=1, asset="a"))
    values.offer(of_rows([(0, 1, 1.0, 192), (1, 1, 2.0, 192)]))
    told(values)
    values.use(TagTable([Tag(name="y", index=1, asset="b"), Tag(name="z", index=2, asset="b")]))
    assert [list(m["values"]) for m in told(values, 2)] == [["y"]]
    values.offer(of_rows([(2, 1, 3.0, 192), (1, 2, 2.0, 192)]))
    assert [list(m["values"]) for m in told(values, 3)] == [["z"]]


def test_numbers_that_json_cannot_tell_are_null() -> None:
    values = live(Tag(name="x", index=0, asset="a"), Tag(name="s", index=1, asset="a", text=True))
    values.offer(of_rows([(0, 1, float("inf"), 64), (1, 1, float("nan"), 0)]))
    assert {name: v["value"] for name, v in told(values)[0]["values"].items()} == {"x": None, "s": None}


@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(st.integers(0, 4), st.floats(-3, 3).map(round)), min_size=1, max_size=8),
            st.none(),
        ),
        max_size=12,
    )
)
def test_a_receiver_that_applies_the_messages_knows_the_last_values(steps: list[Any]) -> None:
    values = live(*(Tag(name=f"t{n}", index=n, asset="ab"[n % 2]) for n in range(5)))
    truth: dict[str, float] = {}
    seen: dict[str, float] = {}
    offered = 0
    for time, step in enumerate([*steps, None]):
        if step is None:
            for message in told(values, time * S * 20):
                seen.update({name: value["value"] for name, value in message["values"].items()})
            assert seen == truth
        else:
            rows = [(tag, time, float(value), 192) for tag, value in step]
            batch = of_rows(rows)
            values.offer(Batch(batch.tag, batch.time, batch.value, batch.quality))
            offered += len(rows)
            truth.update({f"t{tag}": value for tag, _, value, _ in rows})
    assert values.offered == offered
    assert values.superseded + values.unchanged <= offered
    assert np.count_nonzero(values._due) == 0
