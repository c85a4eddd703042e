"""The "Gain reference" dock widget."""
