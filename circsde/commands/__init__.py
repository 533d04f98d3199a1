"""The commands of ``circsde``, a module each, and what they share."""
