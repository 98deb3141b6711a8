"""The commands: options, output, exit statuses."""
