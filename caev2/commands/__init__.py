"""The commands, one file for each stage: parse, call one function, print."""
