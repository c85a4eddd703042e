"""The "Save stack" dock widget."""
