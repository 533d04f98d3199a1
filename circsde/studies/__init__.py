"""Accuracy studies as xarray results."""
