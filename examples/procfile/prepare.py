"""Runs once before a release serves: migrations, for example."""

print("prepared")
