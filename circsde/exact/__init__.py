"""Answers that are known without sampling: spectral solutions, finite sizes, noiseless dynamics, and test problems."""
