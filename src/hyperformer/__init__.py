"""HyperFormer: one frozen model, many tasks, adapters from a shared hypernetwork, graphs to deploy."""
