"""Where faults are injected: around an MCP server, in front of a model, and in the process."""
