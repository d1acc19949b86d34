"""The servers that are compared, each a program: it prints its port and serves until its stdin ends."""
