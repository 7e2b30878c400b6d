"""A local page that shows a model's answers before and after a visual patch."""
