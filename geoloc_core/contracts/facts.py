"""What else is known about a place and a moment, beside where it is: what auxiliary tasks learn and are scored by.

The names, units and classes of PIGEON (Haas et al. 2024, section 3.3 and Table 2).
"""

from typing import Literal, get_args

Quantity = Literal[
    "elevation", "population", "temperature_mean", "temperature_range", "precipitation_mean", "precipitation_range"
]
"""What is a number: see :data:`UNITS`. A mean is that of the year, a range runs from the least month to the most."""
Category = Literal["climate", "month"]
"""What is one of some classes: the Köppen–Geiger zone from 0, in the order of Beck et al. 2018; the month from 1."""
Fact = Quantity | Category
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
CATEGORIES: tuple[Category, ...] = get_args(Category)
FACTS: tuple[Fact, ...] = (*QUANTITIES, *CATEGORIES)

UNITS: dict[Quantity, str] = {
    "elevation": "m",
    "population": "people/km²",
    "temperature_mean": "°C",
    "temperature_range": "°C",
    "precipitation_mean": "mm/day",
    "precipitation_range": "mm/day",
}
CLASSES: dict[Category, int] = {"climate": 30, "month": 12}
"""How many there are."""
FIRST: dict[Category, int] = {"climate": 0, "month": 1}
"""What the first class is called."""
