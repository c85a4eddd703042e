"""The dock widget that sums ranges of a movie's frames, with their spectrum and drift."""
