"""Segmentation on frozen patch tokens: folder of images and masks, heads, mean intersection over union."""
