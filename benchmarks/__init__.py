"""Measurements: every figure that the documentation states was printed by one of these."""
