"""Fixtures for pytest, found by it on its own (entry point ``pytest11``)."""
