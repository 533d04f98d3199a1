"""What approximates a score: exact scores, networks, and how to train them."""

if __name__ != "circsde.models":
    raise ImportError("import circsde.models, not models")

from circsde.models.mlp import ScoreMLP

__all__ = ["ScoreMLP"]
