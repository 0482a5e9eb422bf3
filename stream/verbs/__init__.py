"""The verbs of the command: their options and examples here, their work in the modules they import when they run."""
