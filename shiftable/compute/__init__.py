"""Compute: fleets of machines."""
