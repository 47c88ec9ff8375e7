"""Train a task on a CSV file, export it as an ONNX model, and answer a question with it."""

import hyperformer

LABELS = ("abbreviation", "description", "number", "person", "place", "thing")
task = {
    "source": {"path": "examples/questions"},  # a folder with train.csv
    "text": "{question}",
    "kind": "classification",
    "label_column": "kind",
    "labels": {label: label for label in LABELS},
    "metrics": ["accuracy"],
    "splits": {"validation": "hold_out_48", "test": "hold_out_48"},
}
backbone = "data/minilm/06_models/backbone"  # `make minilm` downloads it
hyperformer.train("data/from_python", {"kind_of_question": task}, backbone, training={"steps": 150, "batch_size": 16})
bundles = hyperformer.export_bundles("data/from_python")
print(bundles["kind_of_question"]({"question": "Who wrote Emma?"}))
