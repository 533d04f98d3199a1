"""The command line: one function per command, in :mod:`circsde.commands`; heavy imports wait until one runs."""

import typer

from circsde.commands import fetch
from circsde.commands.model import diagnose, loglik, sample
from circsde.commands.simulate import EXAMPLES, simulate
from circsde.commands.study import SELECT_EXAMPLES, STUDY_EXAMPLES, problems, select, study
from circsde.commands.train import EXAMPLES as TRAIN_EXAMPLES
from circsde.commands.train import train

app = typer.Typer(
    name="circsde",
    help="Stochastic differential equations on the torus: simulate, study, select, learn.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EXAMPLES)(simulate)
app.command(epilog=STUDY_EXAMPLES)(study)
app.command(epilog=SELECT_EXAMPLES)(select)
app.command()(problems)
app.command(epilog=TRAIN_EXAMPLES)(train)
app.command()(sample)
app.command()(loglik)
app.command()(diagnose)
app.add_typer(fetch.app, name="data")


def _print_version(wanted: bool | None) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"circsde {version('circsde')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: bool | None = typer.Option(
        None, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options of the program as a whole."""


def main() -> None:
    """Run the command that the command line names."""
    app()
