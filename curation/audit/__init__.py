"""The audit: a person judges sampled subjects, and so the filters (Kaleido A.1, manual evaluation)."""

from curation.audit.sample import AuditSample, open_sample
from curation.audit.server import Audit, create_server, open_audit
from curation.audit.statistics import AuditSummary, summarise_audit

__all__ = [
    "Audit",
    "AuditSample",
    "AuditSummary",
    "create_server",
    "open_audit",
    "open_sample",
    "summarise_audit",
]
