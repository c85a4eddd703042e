"""How MRCZ fares against other ways to store a movie: Table 1, figures 2 and 3 of the article.

McLeod et al. (2018), doi:10.1016/j.jsb.2017.11.012.
"""

from napari_mrcz.cli.comparison.contestants import Contestant, contestants
from napari_mrcz.cli.comparison.race import Result, as_text, race

__all__ = ["Contestant", "Result", "as_text", "contestants", "race"]
