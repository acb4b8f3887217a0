"""What a teacher is, and everything it takes to find, check, read and run one."""
