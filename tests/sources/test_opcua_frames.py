"""Frames: whole chunks go on, however the network cuts them; what is larger than agreed ends the connection."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sources.opcua_frames import CHUNK_SIZE_MAX, CHUNKS_MAX, MESSAGE_SIZE_MAX, Frames


def chunk(size, last=True):
    return b"MSG" + (b"F" if last else b"C") + struct.pack("<I", size) + bytes(size - 8)


class Inner:
    """Takes what `Frames` hands on, as the protocol behind it would."""

    def __init__(self):
        self.got = []
        self.aborted = False
        self.transport = self

    def data_received(self, data):
        self.got.append(data)

    def abort(self):
        self.aborted = True


@given(st.lists(st.integers(8, 300), min_size=1, max_size=12), st.data())
def test_only_whole_chunks_are_handed_on_and_none_is_lost(sizes, data):
    stream = b"".join(chunk(size) for size in sizes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    inner = Inner()
    frames = Frames(inner)
    ends = {sum(sizes[: n + 1]) for n in range(len(sizes))}
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames.data_received(stream[start:stop])
        assert sum(map(len, inner.got)) in ends | {0}
    assert b"".join(inner.got) == stream
    assert not inner.aborted


@pytest.mark.parametrize("size", [0, 7, CHUNK_SIZE_MAX + 1, 2**32 - 1])
def test_a_chunk_of_an_impossible_size_ends_the_connection_before_it_is_collected(size):
    inner = Inner()
    Frames(inner).data_received(b"MSGF" + struct.pack("<I", size))
    assert inner.aborted
    assert not inner.got


@pytest.mark.parametrize("size", [8, CHUNK_SIZE_MAX])
def test_a_message_of_too_many_bytes_or_chunks_ends_the_connection(size):
    inner = Inner()
    frames = Frames(inner)
    sent = 0
    while not inner.aborted:
        frames.data_received(chunk(size, last=False))
        sent += 1
        assert sent <= CHUNKS_MAX + 1
    assert sum(map(len, inner.got)) <= MESSAGE_SIZE_MAX


def test_a_final_chunk_starts_the_count_anew():
    inner = Inner()
    frames = Frames(inner)
    for n in range(3 * MESSAGE_SIZE_MAX // CHUNK_SIZE_MAX):
        frames.data_received(chunk(CHUNK_SIZE_MAX, last=n % 2 == 1))
    assert not inner.aborted
