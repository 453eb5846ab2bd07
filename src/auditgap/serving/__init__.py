"""A local model behind an OpenAI-compatible server, with its monitors attached."""
