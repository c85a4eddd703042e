"""The "Gain" dock widget."""
