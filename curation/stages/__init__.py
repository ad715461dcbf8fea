"""The stages of curation. Each stage measures, decides or makes something and changes rows in place."""
