"""The "KOMA" dock widget."""
