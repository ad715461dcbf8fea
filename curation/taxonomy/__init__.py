"""What captions may name, and how it is found in them (Kaleido 3.2 (2))."""

from curation.taxonomy.match import Mention
from curation.taxonomy.taxonomy import Category, Taxonomy, TaxonomyError, find_problems

__all__ = ["Category", "Mention", "Taxonomy", "TaxonomyError", "find_problems"]
