"""Files that jobs hand out: named, signed, counted, collected."""
