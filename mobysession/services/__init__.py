"""What a session can offer to the daemon: one attachable a file."""
