"""Tests against real engines, and what prepares, starts and ends those engines."""
