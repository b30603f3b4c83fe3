"""Ways to divide the world into cells: a module per scheme, named by its ``kind``."""
