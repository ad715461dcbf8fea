"""What curation, training and evaluation share: errors, storage, settings, the Ray session, reading video."""
