"""The "Metadata" dock widget: all that a file says, and whether it is true."""
