"""Serving of exported tasks: an HTTP server, model repositories for Triton, and graphs that include the tokenizer."""
