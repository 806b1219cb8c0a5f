"""The commands; every module has `register(app)` and imports what is heavy inside its functions."""
