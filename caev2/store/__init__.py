"""What the stages agree on: images, views, codecs and targets on disk. numpy and Pillow, no torch."""
