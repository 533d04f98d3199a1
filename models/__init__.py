"""circsde.models."""

if __name__ != "circsde.models":
    raise ImportError("import circsde.models, not models")
