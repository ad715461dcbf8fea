"""What Reprise costs and how good it is, as ratios; each module is a command that ends with one JSON line."""
