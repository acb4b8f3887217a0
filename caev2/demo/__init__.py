"""The built-in scenes and their small teacher: the whole pipeline without a download."""
