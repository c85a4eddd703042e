"""The command line, ``napari-mrcz``: what a facility runs on movies by the hundred, headless."""
