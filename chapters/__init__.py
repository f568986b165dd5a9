"""The chapters: read them, run them, or open their notebooks. `python -m chapters` lists them."""
