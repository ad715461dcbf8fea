"""The audit: a person judges sampled subjects, and so the filters (Kaleido A.1, manual evaluation)."""

from curation.audit.sample import Sample, open_sample
from curation.audit.server import Audit, open_audit, serve
from curation.audit.statistics import Summary, summarise

__all__ = ["Audit", "Sample", "Summary", "open_audit", "open_sample", "serve", "summarise"]
