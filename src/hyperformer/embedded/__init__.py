"""The embedded language: a small artificial English, with rows for its tasks and text to pretrain its backbone."""
