"""How fast do N oscillators approach the mean-field limit? The moments of N = 10, 100, 1000 against the limit's.

    python benchmarks/mean_field.py --quick                  # seconds: N up to 32, few paths
    python benchmarks/mean_field.py --out benchmarks/results/mean_field.json

Intervals have 95 %; ``theory`` is the 1/N correction of the expansion about the limit, which errs by order 1/N^2.
"""

from report import Record, Row, keep, options

from circsde import Schedule
from circsde.exact.finite_size import finite_size
from circsde.exact.problems import normal
from circsde.studies.limit import limit_convergence

SCHEDULE, START = Schedule.linear((1.0, 0.5, 0.5), (4.0, 0.5, 1.0)), normal(2.0, 0.8)
OBSERVABLE = "E cos 2 theta"


def summary(record: Record) -> list[Row]:
    """The distance from the limit over its expansion in 1/N."""
    return [
        Row(
            f"N = {row['oscillators']}: distance from the limit",
            "its 1/N expansion",
            *(row[name] / row["theory"] for name in ("difference", "lower", "upper")),
        )
        for row in record["results"]
    ]


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "N up to 32, few paths: shows that it runs").parse_args()
    sizes, paths = ((8, 16, 32), 100) if arguments.quick else ((10, 100, 1000), 1000)
    study = limit_convergence(SCHEDULE, START, sizes, paths=paths)
    law = finite_size(SCHEDULE, START)
    rows = []
    for n in sizes:
        one = study.sel(oscillators=n, observable=OBSERVABLE)
        row = {name: float(one[name]) for name in ("difference", "lower", "upper")}
        row |= {"oscillators": n, "theory": (law.moment(1.0, 2, n) - law.moment(1.0, 2, 10**12)).real}
        rows.append(row)
        print(
            f"N = {n:5d}   {OBSERVABLE} - limit = {row['difference']:.5f}"
            f" ({row['lower']:.5f} to {row['upper']:.5f})   theory {row['theory']:.5f}"
        )
    order = float(study["order"]), float(study["order_standard_error"])
    print(f"order in 1/N: {order[0]:.2f} +- {order[1]:.2f}")
    keep(arguments.out, paths=paths, observable=OBSERVABLE, results=rows, order=order)


if __name__ == "__main__":
    main()
