"""`caev2 store ...`, a module for each errand."""
