"""The targets that a score regresses on: chains, the Jacobians of their steps, and pathwise targets."""
