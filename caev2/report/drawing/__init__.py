"""Marks on the page: HTML and SVG as values, axes, lines, bars, strips. Pure: numbers and words in, markup out."""
