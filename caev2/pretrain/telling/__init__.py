"""What is said while a run goes on, and where."""
