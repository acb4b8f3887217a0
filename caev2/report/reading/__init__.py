"""What lies in the folders that a report is made of. Everything that is missing or damaged is a gap, and no failure."""
