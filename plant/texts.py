"""Strings become numbers at the door: each text of a text tag gets a small code, for life, per tag."""

from collections.abc import Iterable

TEXTS_PER_TAG_MAX = 10_000
"""A tag with more distinct texts is no status text; further ones share the code OVERFLOW."""
OVERFLOW = 0


class Texts:
    """Two-way dictionary of (tag index, text) and code 1..TEXTS_PER_TAG_MAX; code 0 is "too many texts".

    `fresh` collects what is not in the journal yet as (tag, code, text); the owner of the journal takes it away.
    """

    def __init__(self, known: Iterable[tuple[int, int, str]] = ()) -> None:
        self._codes: dict[tuple[int, str], int] = {}
        self._texts: dict[tuple[int, int], str] = {}
        self._counts: dict[int, int] = {}
        self.fresh: list[tuple[int, int, str]] = []
        for tag, code, text in known:
            self._put(tag, code, text)

    def _put(self, tag: int, code: int, text: str) -> None:
        self._codes[tag, text] = code
        self._texts[tag, code] = text
        self._counts[tag] = max(self._counts.get(tag, 0), code)

    def code(self, tag: int, text: str) -> int:
        """Return the code of a text of this tag; a new text gets the next code."""
        code = self._codes.get((tag, text))
        if code is None:
            code = self._counts.get(tag, 0) + 1
            if code > TEXTS_PER_TAG_MAX:
                return OVERFLOW
            self._put(tag, code, text)
            self.fresh.append((tag, code, text))
        return code

    def text(self, tag: int, code: int) -> str | None:
        """Return the text of a code, None if there is none."""
        return self._texts.get((tag, code))

    def take_fresh(self) -> list[tuple[int, int, str]]:
        """Hand over the entries that the journal does not have yet."""
        fresh, self.fresh = self.fresh, []
        return fresh
