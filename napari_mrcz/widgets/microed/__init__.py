"""The "MicroED" dock widget."""
