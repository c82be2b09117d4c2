"""Cut the recordings of the simulated plant out of the published originals: run once, by hand, results committed.

`python -m edge.simulator.cut ORIGINALS [RECORDINGS]`, where ORIGINALS holds the unpacked data sets in folders named
`cnc_mill`, `nab`, `steel_energy` and `xsdd`. Rules: values are copied as published, never smoothed or converted;
what is computed here (`vibration`, `segment`) stands in a column of its own and is explained in the folder's SOURCE.md.
"""

import shutil
import sys
from pathlib import Path

import duckdb

RECORDINGS = Path(__file__).parent / "recordings"

MILLING_RUNS = (1, 2, 4, 8, 11, 13, 14, 17)
"""Six good parts, one that failed the visual inspection (8) and one that came loose in the vise (4)."""

MILLING_COLUMNS = {
    "X1_ActualPosition": "x_position",
    "X1_ActualVelocity": "x_velocity",
    "X1_CurrentFeedback": "x_current",
    "X1_OutputCurrent": "x_output_current",
    "X1_OutputPower": "x_power",
    "Y1_ActualPosition": "y_position",
    "Y1_ActualVelocity": "y_velocity",
    "Y1_CurrentFeedback": "y_current",
    "Y1_OutputCurrent": "y_output_current",
    "Y1_OutputPower": "y_power",
    "Z1_ActualPosition": "z_position",
    "Z1_ActualVelocity": "z_velocity",
    "S1_ActualVelocity": "spindle_velocity",
    "S1_CurrentFeedback": "spindle_current",
    "S1_OutputCurrent": "spindle_output_current",
    "S1_OutputPower": "spindle_power",
    "M1_CURRENT_FEEDRATE": "feed_rate",
    "M1_sequence_number": "line",
    "Machining_Process": "process",
}

BEARING_SEGMENTS = ((1, 1950, 2750), (2, 3250, 6250), (3, 16150, 16700), (4, 18700, 20200))
"""(segment, first row, row after the last): around the planned shutdown and each of the three labelled failures."""

VIBRATION_SAMPLES = 24
"""The residual is taken against the mean of this many samples before (two hours)."""

ENERGY_FIRST_DAY, ENERGY_LAST_DAY = "2018-01-15", "2018-02-02"

SURFACE_PICTURES = {
    "finishing roll printing": 2,
    "iron sheet ash": 2,
    "oxide scale of plate system": 2,
    "oxide scale of temperature system": 2,
    "red iron": 2,
    "slag inclusion": 2,
    "surface scratch": 2,
}
"""Pictures per class, the first by name."""


def cut_milling(source: Path, into: Path) -> None:
    """Write milling.parquet (rows of 100 ms) and runs.parquet (one row per part, the labels of train.csv)."""
    columns = ", ".join(f'"{old}" AS {new}' for old, new in MILLING_COLUMNS.items())
    files = [str(source / f"experiment_{run:02}.csv") for run in MILLING_RUNS]
    with duckdb.connect() as db:
        db.execute(
            f"""COPY (
                SELECT regexp_extract(filename, '(\\d+)\\.csv$', 1)::TINYINT AS run, {columns}
                FROM read_csv(?, filename=true, parallel=false)
            ) TO '{into / "milling.parquet"}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 19)""",  # noqa: S608 -- constants and paths of this file only
            [files],
        )
        db.execute(
            f"""COPY (
                SELECT No::TINYINT AS run, feedrate::DOUBLE AS feed_rate_set, clamp_pressure::DOUBLE AS clamp_pressure,
                    tool_condition, machining_finalized = 'yes' AS finalized,
                    coalesce(passed_visual_inspection = 'yes', false) AS passed
                FROM read_csv(?, all_varchar=true) WHERE No::TINYINT IN {MILLING_RUNS} ORDER BY run
            ) TO '{into / "runs.parquet"}' (FORMAT parquet)""",  # noqa: S608 -- likewise
            [str(source / "train.csv")],
        )


def cut_bearing(source: Path, into: Path) -> None:
    """Write bearing.parquet: segment, time, temperature as published, vibration derived from its residual."""
    ranges = " UNION ALL ".join(
        f"SELECT {segment} AS segment, * FROM judged WHERE row >= {first} AND row < {last}"  # noqa: S608 -- likewise
        for segment, first, last in BEARING_SEGMENTS
    )
    with duckdb.connect() as db:
        db.execute(
            f"""COPY (
                WITH numbered AS (
                    SELECT row_number() OVER () - 1 AS row, timestamp AS time, value AS temperature
                    FROM read_csv(?, parallel=false)
                ), judged AS (
                    SELECT *, abs(temperature - avg(temperature)
                        OVER (ORDER BY row ROWS {VIBRATION_SAMPLES} PRECEDING)) AS residual FROM numbered
                )
                SELECT segment::TINYINT AS segment, time, temperature, round(1.5 + 0.8 * residual, 2) AS vibration
                FROM ({ranges}) ORDER BY row
            ) TO '{into / "bearing.parquet"}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 19)""",  # noqa: S608 -- constants and paths of this file only
            [str(source / "data/realKnownCause/machine_temperature_system_failure.csv")],
        )


def cut_energy(source: Path, into: Path) -> None:
    """Write energy.parquet: the quarter hours of three working weeks, Monday to Friday."""
    original = next(source.glob("*.csv"))
    with duckdb.connect() as db:
        db.execute(
            f"""COPY (
                SELECT strptime(date, '%d/%m/%Y %H:%M') AS time, Usage_kWh AS usage_kwh,
                    Lagging_Current_Reactive_Power_kVarh AS lagging_kvarh,
                    Leading_Current_Reactive_Power_kVarh AS leading_kvarh, "CO2(tCO2)" AS co2_t,
                    Lagging_Current_Power_Factor AS lagging_power_factor,
                    Leading_Current_Power_Factor AS leading_power_factor, Load_Type AS load_type
                FROM read_csv(?, parallel=false, types={{'date': 'VARCHAR'}})
                WHERE strptime(date, '%d/%m/%Y %H:%M')::DATE BETWEEN '{ENERGY_FIRST_DAY}' AND '{ENERGY_LAST_DAY}'
                    AND Day_of_week NOT IN ('Saturday', 'Sunday')
            ) TO '{into / "energy.parquet"}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 19)""",  # noqa: S608 -- constants and paths of this file only
            [str(original)],
        )


def cut_surface(source: Path, into: Path) -> None:
    """Copy the pictures unchanged, renamed to <class>-<original name>."""
    for kind, count in SURFACE_PICTURES.items():
        pictures = sorted((source / kind).iterdir())
        for picture in pictures[:count]:
            shutil.copyfile(picture, into / f"{kind.replace(' ', '_')}-{picture.name}")


def main() -> None:
    """Cut all four."""
    source = Path(sys.argv[1])
    into = Path(sys.argv[2]) if len(sys.argv) > 2 else RECORDINGS
    for folder in ("milling", "bearing", "energy", "surface"):
        (into / folder).mkdir(parents=True, exist_ok=True)
    cut_milling(source / "cnc_mill", into / "milling")
    cut_bearing(source / "nab", into / "bearing")
    cut_energy(source / "steel_energy", into / "energy")
    cut_surface(source / "xsdd", into / "surface")


if __name__ == "__main__":
    main()
