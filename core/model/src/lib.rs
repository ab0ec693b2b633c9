//! malai's pure domain: what a cluster's files mean, who may do what, and what goes over the wire.
//!
//! No IO, no clock, no randomness: time and random bytes are parameters. Everything here can be tested without a
//! network, and a property of it holds on every platform.

pub mod acl;
pub mod address;
pub mod alias;
pub mod audit;
pub mod cluster;
pub mod code;
pub mod config;
pub mod diagnostic;
pub mod duration;
pub mod id;
pub mod name;
pub mod targets;
pub mod text;
pub mod wire;
