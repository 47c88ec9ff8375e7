"""The Kedro project: nodes, datasets and hooks. All computation is in the package `hyperformer`.

Kedro reads the annotations of node functions when a run starts, and passes each `params:` input as an instance of the
annotated settings class. Therefore the annotated types must be importable at run time (not only if `TYPE_CHECKING`),
and without torch, so that `kedro --help` is fast.
"""
