"""From an image file to the crop that teacher and student see."""
