"""One pass over a source video: open, decode each frame once, find shots, cut clips."""
