"""Names that the shell completes, written down so that it need not wait for libraries, and how they begin."""

from circsde.exact.catalogue import PROBLEMS

METHODS = ("euler_maruyama", "heun", "sra1", "mobius_strang", "noise_flow_noise", "leimkuhler_matthews")
"""Names to complete and to list in the help, where importing ``circsde.solvers.METHODS`` would take a second."""

BACK_IN_TIME = ("ancestral", "multistep", "dpmpp_2m", "multistep3")
"""Methods for reversed equations only."""


def complete_method(incomplete: str) -> list[str]:
    """The methods whose names begin with the given text.

    >>> complete_method("h")
    ['heun']
    """
    return [name for name in METHODS if name.startswith(incomplete)]


def complete_step_back(incomplete: str) -> list[str]:
    """The methods whose names begin so, those for reversed equations included.

    >>> complete_step_back("m")
    ['mobius_strang', 'multistep', 'multistep3']
    """
    return [name for name in (*METHODS, *BACK_IN_TIME) if name.startswith(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """Complete the last of several names of methods with commas between.

    >>> complete_methods("heun,sr")
    ['heun,sra1']
    """
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in complete_method(last)]


def complete_problem(incomplete: str) -> list[str]:
    """The problems whose names begin with the given text.

    >>> complete_problem("two")
    ['two_coupled', 'two_coupled_well']
    """
    return [name for name in PROBLEMS if name.startswith(incomplete)]
