"""The sections of the page, one module each: from what was read to what is shown."""
