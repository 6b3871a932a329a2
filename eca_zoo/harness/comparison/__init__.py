"""Two runs beside each other: what differs around them, and which differences of their figures are real."""
