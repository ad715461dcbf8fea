"""The audit: a person judges sampled subjects, which measures the filters (Kaleido A.1)."""

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
