"""The "Outliers" dock widget."""
