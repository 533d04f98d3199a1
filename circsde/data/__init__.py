"""Real and generated data sets."""
