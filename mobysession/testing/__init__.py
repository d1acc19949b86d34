"""Doubles for tests: of users as of ours."""
