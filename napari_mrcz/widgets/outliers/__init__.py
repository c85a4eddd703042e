"""The "Outlier pixels" dock widget."""
