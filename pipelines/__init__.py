"""The Kedro project: nodes, datasets and hooks. All computation is in the package `hyperformer`."""
