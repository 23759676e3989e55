"""Names that plugins import from the base framework."""
