"""Backends of computer vision without learned weights beside OpenCV's own: no download, no GPU."""
