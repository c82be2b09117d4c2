"""The reference page says what the code says."""

from pathlib import Path

from edge.config.model import TAG_COLUMNS
from edge.config.reference import TAGS, page


def test_the_reference_page_is_what_the_option_classes_say():
    written = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert written == page(), "renew it: python -m edge.config.reference > docs/configuration.md"


def test_every_option_has_a_description():
    assert "|  |\n" not in page().replace("| |", "|  |")
    assert set(TAGS) == set(TAG_COLUMNS)
