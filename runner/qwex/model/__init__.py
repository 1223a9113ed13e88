"""Frozen values of the field, without any I/O."""
