"""What the tests of the commands share: a call of the command line, and the servers of the sources' tests."""

import asyncio
import sys
from pathlib import Path

from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "sources"))


def call(*arguments, stdin=None):
    """Run `andon`; the result has exit_code, stdout and stderr."""
    from edge.cli import main

    result = CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


async def andon(*arguments, stdin=None):
    """Run `andon` in a thread, so that servers of this test go on."""
    return await asyncio.to_thread(call, *arguments, stdin=stdin)
