"""Encode, measure, cut out and composite pictures and masks."""
