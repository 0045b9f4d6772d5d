"""Duties towards the people whose data is here: forget, export, keep no longer than was said."""
