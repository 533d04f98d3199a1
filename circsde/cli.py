"""The command line: one function per command, in :mod:`circsde.commands`; heavy imports wait until one runs."""

import io
import sys

import typer

from circsde.commands import diagnose, doctor, fetch, loglik, sample, simulate, study, study_examples, train, verify
from circsde.commands.console import Program, version_line

EXAMPLES = """
[bold]Examples[/]

Let the phases of a fingerprint synchronise, and compare with theory:

  [cyan]circsde simulate fingerprint --scale 0.5[/]

Find the cheapest method for a tolerance:

  [cyan]circsde select stiff_well --tolerance 1e-2[/]

Learn the density of two angles in a table, and judge it:

  [cyan]circsde train angles.csv --unit deg --columns phi,psi --out run[/]
  [cyan]circsde diagnose run[/]

The exit status is 0 for success, 1 if a computation failed, 2 for bad input, 130 after Ctrl-C.
"""

app = typer.Typer(
    name="circsde",
    cls=Program,
    help="Stochastic differential equations on the torus: simulate, study, select, learn.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=simulate.EXAMPLES)(simulate.simulate)
app.command(epilog=study_examples.STUDY)(study.study)
app.command(epilog=study_examples.SELECT)(study.select)
app.command(epilog=study_examples.PROBLEMS)(study.problems)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=sample.EXAMPLES)(sample.sample)
app.command(epilog=loglik.EXAMPLES)(loglik.loglik)
app.command(epilog=diagnose.EXAMPLES)(diagnose.diagnose)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.add_typer(fetch.app, name="data")


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _options(
    _version: bool | None = typer.Option(
        None, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options of the program as a whole."""


def main() -> None:
    """Run the command that the command line names.

    A character that the terminal, or whatever reads the output, cannot show is printed as its escape sequence.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where it is closed
            stream.reconfigure(errors="backslashreplace")
    app()
