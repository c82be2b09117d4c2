"""The commands of `andon` for commissioning and service, one module each.

Owns what they share: exit codes, the option `--config`, failures as sentences, and progress on a terminal. Leaves
everything else to the command; each imports what is heavy inside, so that `andon --help` stays fast.

Rules: results go to standard output, everything else to standard error; 0 is success, 1 a failure, 2 a mistake in the
call or in the configuration; what takes longer than a second shows how far it is.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from edge.errors import AndonError, ConfigError, Problem

EXIT_FAILED = 1
EXIT_CONFIG = 2

Progress = Callable[[str, int, int | None], None]
"""Takes what is being done, how much of it is done, and how much there is (None = nobody knows yet)."""

config_option = click.option(
    "--config",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ANDON_CONFIG",
    help="Folder with gateway.toml. Default: ./config if it is there, else /etc/andon.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable, on standard output.")


def default_folder() -> Path:
    """Return the configuration folder that is meant when none is named."""
    here = Path("config")
    return here if (here / "gateway.toml").exists() else Path("/etc/andon")


def socket_of(folder: Path | None) -> tuple[Path, str]:
    """Return state folder and name of the control socket, reading no more of the configuration than that.

    Raises ConfigError.
    """
    from edge.toml_file import read_toml

    folder = folder or default_folder()
    problems: list[Problem] = []
    toml = read_toml(folder / "gateway.toml", problems)
    if toml is None:
        raise ConfigError(problems)
    state_dir = toml.data.get("gateway", {}).get("state_dir", "/var/lib/andon")
    socket = toml.data.get("web", {}).get("control_socket", "control.sock")
    return folder / str(state_dir), str(socket)


def print_problems(problems: list[Problem], colour: str = "red") -> None:
    for problem in problems:
        click.secho(str(problem), fg=colour, err=True)


def sentence(error: AndonError) -> str:
    """Return the error in words; asyncio says "Connect call failed" where the system knows why it did."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return re.sub(r"Connect call failed \([^)]*\)", os.strerror(cause.errno).lower(), str(error))
    return str(error)


def failed(error: AndonError, what_to_do: str = "") -> click.exceptions.Exit:
    """Say what went wrong and what to do about it; return the exit that the command raises."""
    if isinstance(error, ConfigError):
        print_problems(error.problems)
        return click.exceptions.Exit(EXIT_CONFIG)
    click.secho(sentence(error), fg="red", err=True)
    if what_to_do:
        click.secho(what_to_do, err=True)
    return click.exceptions.Exit(EXIT_FAILED)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Show a bar on a terminal, nothing elsewhere, and take it away at the end."""
    import rich.progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show
