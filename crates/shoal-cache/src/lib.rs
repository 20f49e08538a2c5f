//! Objects here and elsewhere: store, fills, peers, purges.
