"""What you need not read: devices, processes, files. Nothing here is about a model."""
