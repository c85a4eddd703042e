"""The "Session: KOMA" dock widget."""
