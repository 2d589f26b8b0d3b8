"""The report: one static HTML file, its figures and its graph of claims."""
