"""`andon doctor`: what is the matter, since when, why, and what to do, in one sentence each."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.commands import EXIT_FAILED, config_option, default_folder, failed, json_option, progress
from edge.errors import AndonError, ConfigError, Refused, Unreachable

if TYPE_CHECKING:
    from edge.config import Config
    from edge.doctor.finding import Finding
    from edge.view import Snapshot

MARKS = {"ok": ("ok  ", "green"), "note": ("note", "cyan"), "act": ("ACT ", "red")}
PROBLEMS_SHOWN_MAX = 3
TROUBLED = ("down", "refused", "parked", "connecting")


@click.command()
@config_option
@json_option
def doctor(folder: Path | None, *, as_json: bool) -> None:
    """Examine gateway, devices, broker, disk, journal, clock and certificates. Exit code 1 if somebody has to act.

    Asks the gateway if it runs. If it does not, every connection is tried from here, once, and nothing is changed.
    """
    folder = folder or default_folder()
    findings: list[Finding] = []
    try:
        config, about_config = _configuration(folder)
        findings += about_config
        snapshot, about_gateway = _gateway(folder)
        if about_gateway is not None:
            findings.append(about_gateway)
        if snapshot is not None:
            findings += _while_running(snapshot, config)
        elif config is not None and about_gateway is not None and about_gateway.state != "act":
            findings += _while_stopped(config, quiet=as_json)
        if config is not None:
            from edge.doctor.machine import certificates

            findings += certificates(config)
    except AndonError as error:
        raise failed(error) from error
    _tell(findings, as_json=as_json)
    from edge.doctor.finding import needs_person

    if needs_person(findings):
        raise click.exceptions.Exit(EXIT_FAILED)


def _configuration(folder: Path) -> "tuple[Config | None, list[Finding]]":
    from edge.config import load
    from edge.doctor.finding import Finding

    try:
        config = load(folder)
    except ConfigError as error:
        shown = [str(problem) for problem in error.problems[:PROBLEMS_SHOWN_MAX]]
        more = len(error.problems) - len(shown)
        finding = Finding(
            kind="configuration",
            name=str(folder),
            state="act",
            sentence=f"The configuration in {folder} has {len(error.problems)} mistakes.",
            cause="; ".join(shown) + (f"; and {more} more" if more else ""),
            next_step="correct them: `andon check` lists them all",
        )
        return None, [finding]
    warnings = f"; {len(config.warnings)} warnings (`andon check`)" if config.warnings else ""
    sentence = (
        f"The configuration in {folder} has no mistake: {len(config.file.device)} devices, {len(config.tags)} tags, "
        f"{len(config.rules)} alarms{warnings}."
    )
    finding = Finding(
        kind="configuration", name=str(folder), state="note" if config.warnings else "ok", sentence=sentence
    )
    return config, [finding]


def _gateway(folder: Path) -> "tuple[Snapshot | None, Finding | None]":
    """Ask the gateway. Returns its snapshot, or a finding: a note if it does not run.

    One that runs and cannot be asked keeps its devices to itself: nobody may connect to them beside it. Raises
    ConfigError if gateway.toml cannot be read.
    """
    from edge.commands.devices import read_gateway, state_dir
    from edge.control import CONTROL_SOCKET, Control
    from edge.doctor.finding import Finding

    toml = read_gateway(folder)
    socket = str(toml.data.get("web", {}).get("control_socket", CONTROL_SOCKET))
    try:
        with Control(state_dir(toml), socket) as control:
            return control.status(), None
    except Unreachable as error:
        if "no gateway is running" in str(error):
            sentence = "No gateway is running here; everything was tried from this command instead."
            return None, Finding(kind="gateway", state="note", sentence=sentence, next_step="start it: `andon run`")
        cause, step = str(error), "look at its log (`journalctl -u andon`), then restart it"
    except Refused as error:
        cause, step = str(error), "run this as the user it runs as, or as root"
    except AndonError as error:
        cause, step = str(error), "restart the gateway"
    sentence = "The gateway cannot be asked; its devices were left alone."
    return None, Finding(kind="gateway", state="act", sentence=sentence, cause=cause, next_step=step)


def _while_running(snapshot: "Snapshot", config: "Config | None") -> "list[Finding]":
    from edge.doctor.machine import clock
    from edge.doctor.running import of_snapshot

    now = time.time_ns()
    findings = of_snapshot(snapshot, now)
    if config is not None:
        findings = asyncio.run(_reached(findings, config, {d.name: d.state for d in snapshot.devices}))
    return findings + clock(0, now)


async def _reached(findings: "Sequence[Finding]", config: "Config", states: dict[str, str]) -> "list[Finding]":
    """Add to the devices that give no data whether anybody listens at their address: the gateway is not connected."""
    from dataclasses import replace

    from edge.doctor.connections import addresses, tcp

    where = {options.name: addresses(options) for options in config.file.device}

    async def one(finding: "Finding") -> "Finding":
        if finding.kind != "device" or states.get(finding.name) not in TROUBLED:
            return finding
        found = [f"{host}:{port} {await tcp(host, port)}" for host, port in where.get(finding.name, ())]
        return replace(finding, cause="; ".join(part for part in (finding.cause, *found) if part))

    return list(await asyncio.gather(*(one(finding) for finding in findings)))


def _while_stopped(config: "Config", *, quiet: bool) -> "list[Finding]":
    from edge.doctor.connections import examine
    from edge.doctor.machine import clock, disk, journal, newest_stored

    total = len(config.file.device) + 1
    done = 0
    with progress() as show:

        def told(_: "Finding") -> None:
            nonlocal done
            done += 1
            if not quiet:
                show("trying devices and broker", done, total)

        findings = asyncio.run(examine(config, told))
    findings += [disk(config), journal(config)]
    return findings + clock(newest_stored(config.state_dir), time.time_ns())


def _tell(findings: "Sequence[Finding]", *, as_json: bool) -> None:
    from edge.doctor.finding import iso, needs_person

    if as_json:
        record = {"healthy": not needs_person(findings), "findings": [finding.record() for finding in findings]}
        click.echo(json.dumps(record, indent=1))
        return
    for finding in findings:
        mark, colour = MARKS[finding.state]
        since = f" Since {iso(finding.since)}." if finding.since and iso(finding.since) not in finding.sentence else ""
        name = f"{finding.kind:<13} "
        click.echo(f"{click.style(mark, fg=colour, bold=True)} {name}{finding.sentence}{since}")
        if finding.cause:
            click.echo(f"     {'':13} why: {finding.cause}")
        if finding.next_step:
            click.echo(f"     {'':13} do:  {finding.next_step}")
    acts = sum(finding.state == "act" for finding in findings)
    if acts:
        things = "1 thing needs" if acts == 1 else f"{acts} things need"
        click.secho(f"{things} a person", bold=True, file=sys.stdout)
    else:
        click.secho("nothing needs a person", bold=True)
