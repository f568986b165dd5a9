"""What nobody needs to read: devices, processes, files."""
