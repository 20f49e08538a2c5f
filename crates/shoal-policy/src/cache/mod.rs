//! RFC 9111 and what lies around it: storing, freshness, validation, placement, purges.
