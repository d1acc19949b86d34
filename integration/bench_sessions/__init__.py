"""What managed sessions cost: until they are ready, while they are idle, for each event; against less and nothing."""
