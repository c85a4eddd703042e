from .ageing import (
    OutlierCensus,
    correlation_with,
    count_outliers,
    cumulative_dose,
    noise_within,
)
from .koma import (
    Koma,
)
from .session import (
    Session,
)
from .summaries import (
    sums_folder,
)

__all__ = [
    "Koma",
    "OutlierCensus",
    "Session",
    "correlation_with",
    "count_outliers",
    "cumulative_dose",
    "noise_within",
    "sums_folder",
]
