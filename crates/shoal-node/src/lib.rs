//! One process: builds every room in order, admin gRPC, ops HTTP, signals, drain.
