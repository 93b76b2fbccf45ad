//! The machine against all that can happen to it: an exhaustive search of small worlds, the same search of broken machines,
//! which must fail, and random histories.

mod histories;
mod invariants;
mod mutants;
mod search;
mod world;
