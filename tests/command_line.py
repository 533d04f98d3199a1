"""What the tests of commands share."""

import shlex

from typer.testing import CliRunner

from circsde.cli import app


def ran(line: str, status: int = 0) -> str:
    """What a command line prints, blanks made one; an error that it does not answer for is raised."""
    result = CliRunner().invoke(app, shlex.split(line))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())
