"""`andon replay`: what was recorded through a configuration, and through another one, before either goes live."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.commands import config_option, default_folder, failed, json_option, progress
from edge.commands.moment import moment
from edge.errors import AndonError

if TYPE_CHECKING:
    from edge.config import Config
    from edge.replay.outcome import Outcome
    from edge.replay.recording import Recording

NS_PER_S = 1_000_000_000
WIDTH_WITHOUT_TERMINAL = 10_000


@click.command()
@config_option
@click.option("--from", "start", default=None, help="2026-11-20T06:00, or -2h, -30m, -1d. Default: the oldest reading.")
@click.option("--to", "end", default=None, help="The same, or now. Default: the newest reading.")
@click.option(
    "--recording",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A Parquet or CSV file, e.g. of `andon export`, instead of what this gateway stored.",
)
@click.option("--raw", is_flag=True, help="The recording holds raw values of the devices: scale and offset apply.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of another configuration: run it too and show how it differs.",
)
@json_option
def replay(
    folder: Path | None,
    start: str | None,
    end: str | None,
    path: Path | None,
    against: Path | None,
    *,
    raw: bool,
    as_json: bool,
) -> None:
    """Run recorded readings through a configuration: which alarms, which OEE, which readings would be stored.

    Nothing is connected, stored or published. The readings are those that the gateway of --config stored, running or
    stopped, or a file. With --against the same readings go through a second configuration: what is different before
    it goes live.
    """
    from edge.config import load

    if raw and path is None:
        raise click.UsageError("--raw needs --recording: what a gateway stores is in engineering units")
    begin = moment(start) if start else 0
    until = moment(end) if end else 2**62
    try:
        config = load(folder or default_folder())
        other = load(against) if against else None
        with contextlib.ExitStack() as stack:
            recording = stack.enter_context(_recording(config, path, begin, until))
            a = _run("A" if other else "replay", config, recording, None if raw else config)
            b = _run("B", other, recording, None if raw else config) if other else None
    except AndonError as error:
        raise failed(error) from error
    _tell(config, recording, a, b, as_json=as_json)


def _recording(
    config: "Config", path: Path | None, start: int, end: int
) -> contextlib.AbstractContextManager["Recording"]:
    from edge.replay.recording import Recording
    from edge.replay.stored import stored

    if path is not None:
        return Recording(path, start, end)
    return stored(config.state_dir, config.file.web.control_socket, start, end)


def _run(what: str, config: "Config", recording: "Recording", stored: "Config | None") -> "Outcome":
    from edge.replay.run import run

    seconds = max((recording.last - recording.first) // NS_PER_S, 1)
    with progress() as show:
        return run(
            config,
            recording,
            stored=stored,
            progress=lambda now: show(what, min((now - recording.first) // NS_PER_S, seconds), seconds),
        )


def _tell(config: "Config", recording: "Recording", a: "Outcome", b: "Outcome | None", *, as_json: bool) -> None:
    from zoneinfo import ZoneInfo

    from rich.console import Console

    from edge.replay.outcome import compare
    from edge.replay.tell import Teller, differences_record, outcome_record

    differences = compare(a, b) if b else None
    if as_json:
        record = {"a": outcome_record(a), "note": recording.note}
        if b is not None and differences is not None:
            record |= {"b": outcome_record(b), "differences": differences_record(differences)}
        click.echo(json.dumps(record, indent=1))
        return
    teller = Teller(
        Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL), ZoneInfo(config.file.site.time_zone)
    )
    if recording.note:
        click.secho(recording.note, fg="yellow", err=True)
    teller.outcome(a, "A" if b else "")
    if b is not None and differences is not None:
        click.echo()
        teller.outcome(b, "B")
        teller.differences(differences)
