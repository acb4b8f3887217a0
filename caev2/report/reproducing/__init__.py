"""Commands that make the numbers of a page again, from what their files record."""
