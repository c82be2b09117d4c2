"""`andon user`: who may log in on the local page. Talks to the running gateway; asks for passwords, takes no argument.

Owns what is asked and said. Leaves to others: what a good password is and where it is kept (the gateway).
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from edge.commands import config_option, failed, json_option, socket_of
from edge.errors import AndonError

ROLES = ("viewer", "operator", "engineer")
PASSWORD_LENGTH_MAX = 1000
NS_PER_S = 1_000_000_000

_stdin_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input, for scripts."
)


@click.group()
def user() -> None:
    """Users of the local page: viewer looks, operator acts on alarms and stops, engineer also asks in SQL."""


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline(PASSWORD_LENGTH_MAX).rstrip("\r\n")
    text = "Password (12 characters or more; a short sentence is good)"
    return str(click.prompt(text, hide_input=True, confirmation_prompt="The same again", err=True))


def _send(folder: Path | None, action: str, name: str, role: str = "viewer", password: str = "") -> None:
    from edge.control import Control

    try:
        with Control(*socket_of(folder)) as control:
            click.echo(control.change_user(action, name, role, password))
    except AndonError as error:
        raise failed(error) from error


@user.command()
@config_option
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True)
@_stdin_option
def add(folder: Path | None, name: str, role: str, *, password_stdin: bool) -> None:
    """Let somebody log in: `andon user add maria --role operator`. The password is asked for."""
    _send(folder, "add", name, role, _password(from_stdin=password_stdin))


@user.command()
@config_option
@click.argument("name")
@_stdin_option
def passwd(folder: Path | None, name: str, *, password_stdin: bool) -> None:
    """Give a user a new password; whoever is logged in under this name is logged out."""
    _send(folder, "password", name, password=_password(from_stdin=password_stdin))


@user.command()
@config_option
@click.argument("name")
def remove(folder: Path | None, name: str) -> None:
    """Let somebody log in no longer, and log him out at once."""
    _send(folder, "remove", name)


@user.command()
@config_option
@click.argument("name")
def logout(folder: Path | None, name: str) -> None:
    """End all logins of a user."""
    _send(folder, "logout", name)


@user.command("list")
@config_option
@json_option
def list_users(folder: Path | None, *, as_json: bool) -> None:
    """Show who may log in, as what, and who is logged in now."""
    from edge.control import Control

    try:
        with Control(*socket_of(folder)) as control:
            users = control.users()
    except AndonError as error:
        raise failed(error) from error
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(users)).decode())
        return
    if not users:
        click.echo("nobody can log in: `andon user add NAME --role operator`", err=True)
    for each in users:
        changed = datetime.fromtimestamp(each.changed / NS_PER_S, UTC).date()
        here = f", logged in {each.sessions} times" if each.sessions else ""
        click.echo(f"{each.name:20} {each.role:10} password of {changed}{here}")
