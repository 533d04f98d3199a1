"""Examples at the end of the help of ``circsde study``, ``circsde select`` and ``circsde problems``."""

STUDY = """
[bold]Examples[/]

Weak orders without sampling noise, on a problem of one phase:

  [cyan]circsde study published_doubled[/]

Strong orders of two methods, four processes; interrupt it, and run it again to go on:

  [cyan]circsde study two_coupled --metric strong --methods heun,sra1 --paths 65536 --workers 4[/]

What accuracy costs, beside torchsde:

  [cyan]circsde study stiff_well --metric work-precision --methods heun,mobius_strang,torchsde:srk[/]

The result in Python: [cyan]xarray.open_dataset("published_doubled-weak.nc")[/]
"""

SELECT = """
[bold]Examples[/]

The cheapest method whose means are within a tolerance:

  [cyan]circsde select published --tolerance 1e-3[/]

The same for a script, as JSON:

  [cyan]circsde select published --tolerance 1e-3 --json --quiet --force[/]

Also how much noise a reversed equation should have:

  [cyan]circsde select reverse --tolerance 1e-2 --stochasticity 0,0.5,1[/]

How to sample a trained model:

  [cyan]circsde select runs/lys --tolerance 1e-2[/]

Its samples, by what was chosen:

  [cyan]circsde sample runs/lys --recipe runs/lys/recipe.json[/]

A tolerance of an adaptive method, for paths within 1e-4 rad:

  [cyan]circsde select probability_flow --tolerance 1e-4 --metric strong[/]
"""

PROBLEMS = """
[bold]Examples[/]

  [cyan]circsde problems[/]

  [cyan]circsde problems --json[/]
"""
