"""A pack that forgot its NODE_CLASS_MAPPINGS."""
