"""What an extraction will write, how long it will take, and whether it can."""
