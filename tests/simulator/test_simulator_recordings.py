"""The committed recordings: complete, small, with their licence, and what the originals' documents say of them."""

import re

import numpy as np
import pytest

from edge.errors import ConfigError
from edge.simulator.cut import BEARING_SEGMENTS, MILLING_COLUMNS, MILLING_RUNS
from edge.simulator.recording import RECORDINGS_DIR, pictures, read

BYTES_MAX = 3_000_000
PICTURE_BYTES_MAX = 250_000
LICENCES = {
    "milling": "CC0 1.0 Universal",
    "bearing": "Permission is hereby granted, free of charge",
    "energy": "Creative Commons Attribution 4.0 International",
    "surface": "Apache License",
}


@pytest.mark.parametrize("folder", LICENCES)
def test_each_recording_has_its_source_and_the_text_of_its_licence(folder):
    source = (RECORDINGS_DIR / folder / "SOURCE.md").read_text()
    for word in ("**Origin:**", "**Authors:**", "**Licence:**", "What was cut"):
        assert word in source
    assert LICENCES[folder] in (RECORDINGS_DIR / folder / "LICENSE.txt").read_text()


def test_no_folder_is_without_a_licence_and_all_stay_small():
    assert {path.name for path in RECORDINGS_DIR.iterdir() if path.is_dir()} == set(LICENCES)
    assert sum(path.stat().st_size for path in RECORDINGS_DIR.rglob("*") if path.is_file()) <= BYTES_MAX


def test_milling_holds_the_runs_with_the_labels_of_the_source():
    machining = read(RECORDINGS_DIR / "milling/milling.parquet")
    runs = read(RECORDINGS_DIR / "milling/runs.parquet")
    assert set(machining.columns) == {"run", *MILLING_COLUMNS.values()}
    assert tuple(np.unique(machining.numbers("run"))) == MILLING_RUNS
    assert np.all(np.diff(machining.numbers("run")) >= 0)
    rows = {int(run): int((machining.numbers("run") == run).sum()) for run in MILLING_RUNS}
    # Lengths of the original files, header left out.
    assert rows == {1: 1055, 2: 1668, 4: 532, 8: 605, 11: 2314, 13: 2233, 14: 2332, 17: 2150}
    labels = {int(row["run"]): (row["finalized"], row["passed"]) for row in map(runs.at, range(runs.rows))}
    assert labels[4] == (0, 0)
    assert labels[8] == (1, 0)
    assert all(labels[run] == (1, 1) for run in (1, 2, 11, 13, 14, 17))
    first = machining.at(0)
    assert first["process"] == "Starting"
    assert (first["x_position"], first["spindle_output_current"], first["feed_rate"]) == (198.0, 329.0, 50.0)


def test_bearing_is_cut_around_the_failures_and_vibration_follows_its_stated_formula():
    bearing = read(RECORDINGS_DIR / "bearing/bearing.parquet")
    temperature, segment = bearing.numbers("temperature"), bearing.numbers("segment")
    for number, first, last in BEARING_SEGMENTS:
        assert (segment == number).sum() == last - first
        assert temperature[segment == number].min() < 60
    assert temperature.min() == pytest.approx(2.0847212)
    i = int(np.flatnonzero(segment == 2)[0]) + 500
    residual = abs(temperature[i] - temperature[i - 24 : i + 1].mean())
    assert bearing.numbers("vibration")[i] == pytest.approx(1.5 + 0.8 * residual, abs=0.006)


def test_energy_holds_fifteen_working_days():
    energy = read(RECORDINGS_DIR / "energy/energy.parquet")
    assert energy.rows == 15 * 96
    assert set(energy.columns["load_type"]) == {"Light_Load", "Medium_Load", "Maximum_Load"}


def test_surface_holds_two_pictures_of_each_class():
    found = pictures(RECORDINGS_DIR / "surface")
    kinds = [re.sub(r"-\d+\.\w+$", "", path.name) for path in found]
    assert len(found) == 14
    assert all(kinds.count(kind) == 2 for kind in set(kinds))
    assert len(set(kinds)) == 7
    assert sum(path.stat().st_size for path in found) <= PICTURE_BYTES_MAX
    assert all(path.read_bytes()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1") for path in found)


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"milling\.parquet: the recording is missing"):
        read(tmp_path / "milling.parquet")
    with pytest.raises(ConfigError, match="holds no pictures"):
        pictures(tmp_path)
