"""Stage one: a frozen teacher runs once over deterministic views; the only package that knows a teacher."""
