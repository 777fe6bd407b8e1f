//! Damage: sled destroyed in every way must heal by itself, from the journal, with every read right;
//! a damaged journal must be refused, named, and left alone.

mod base;
mod journal;
mod sled;
mod whole;
