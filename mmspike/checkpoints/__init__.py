"""Reading weights that were trained elsewhere."""
