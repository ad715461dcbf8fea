"""Reading lists of videos and pictures, and captions, from files that may hold anything."""
