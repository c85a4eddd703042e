from .averages import (
    Koma,
)
from .recipe import (
    Coding,
    Recipe,
    recipe_options,
)
from .report import (
    OutlierCensus,
    correlation_with,
    count_outliers,
    cumulative_dose,
    noise_within,
)
from .session import (
    Session,
)
from .summaries import (
    sums_folder,
)
from .tasks import (
    Selection,
)

__all__ = [
    "Coding",
    "Koma",
    "OutlierCensus",
    "Recipe",
    "Selection",
    "Session",
    "correlation_with",
    "count_outliers",
    "cumulative_dose",
    "noise_within",
    "recipe_options",
    "sums_folder",
]
