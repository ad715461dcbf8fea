"""The names of subjects, and the code that finds them in captions (Kaleido 3.2 (2))."""

from curation.taxonomy.checks import find_problems
from curation.taxonomy.files import TaxonomyError
from curation.taxonomy.mentions import Mention
from curation.taxonomy.taxonomy import BodySize, Category, Taxonomy

__all__ = ["BodySize", "Category", "Mention", "Taxonomy", "TaxonomyError", "find_problems"]
