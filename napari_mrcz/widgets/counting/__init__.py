"""The "Counting" dock widget."""
