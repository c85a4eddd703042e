"""The "Save" dock widget."""
