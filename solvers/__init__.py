"""circsde.solvers."""

if __name__ != "circsde.solvers":
    raise ImportError("import circsde.solvers, not solvers")
