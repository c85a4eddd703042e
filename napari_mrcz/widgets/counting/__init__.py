"""The "Electron counting" dock widget."""
