"""The models that ``torsion_likelihood.py`` compares, and how each is fitted."""
