"""What statprune costs: each module measures one thing and writes a file of ``results/``.

``make bench`` runs them all; one alone is ``python -m benchmarks.phases``, from the project's folder.
"""
