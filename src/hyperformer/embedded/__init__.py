"""The embedded language: an artificial small English, the rows of its tasks and the text of its backbone."""
