"""What the pieces are put to: one file a task."""
