"""Backends of classical computer vision. Their only learned weights are OpenCV's: no download, no GPU."""
