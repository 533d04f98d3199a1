"""Shared by the tests of commands."""

import shlex

from typer.testing import CliRunner

from circsde.cli import app


def ran(line: str, status: int = 0) -> str:
    """The output of a command line, with blanks made one; raises errors that the command does not report."""
    result = CliRunner().invoke(app, shlex.split(line))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())
