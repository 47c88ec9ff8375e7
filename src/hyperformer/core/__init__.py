"""Types, errors and helpers that all packages share; nothing here imports PyTorch."""
