//! Bytes in, bytes out: listeners, request path, upstream pools, health checks.
