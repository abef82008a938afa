"""YAML files, laid out as statprune's own conf folder."""
