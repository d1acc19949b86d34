"""Generated protobuf messages; `proto/` holds the sources and `make proto` regenerates them."""
