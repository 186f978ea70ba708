"""How does a run look as one HTML page?"""
