"""Dock widgets: each a form that follows viewer and theme, over functions that need no window."""
