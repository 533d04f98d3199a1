"""Stochastic and ordinary differential equations on the torus."""
