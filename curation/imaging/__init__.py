"""Pictures and masks: encoding, geometry, compositing."""
