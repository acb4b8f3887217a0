"""What a run makes of some images, as pictures."""
