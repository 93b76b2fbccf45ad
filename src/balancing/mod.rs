//! Which endpoint of a pool.
