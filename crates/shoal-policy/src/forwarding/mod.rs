//! Hop-by-hop and forwarding fields, on the way in and out.
