"""The Kedro project: which nodes there are and what flows between them. Everything is computed in `hyperformer`."""
