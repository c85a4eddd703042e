"""What napari calls: reader, writer, settings, sample data and the demo (see napari.yaml).

May import every room but cli; only the demo looks into the widgets, through the viewer. Begin with
hooks.py, where napari enters; layers.py turns a stack into a layer and back.
"""
