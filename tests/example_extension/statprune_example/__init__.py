"""Choices for statprune; pyproject.toml names them, and statprune imports each when it is chosen."""
