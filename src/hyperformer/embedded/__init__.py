"""The embedded language: a small English, the rows of its tasks, and the text its backbone is pretrained on."""
