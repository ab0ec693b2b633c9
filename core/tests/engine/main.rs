//! The engine: several nodes in one process, over a network in memory with faults on demand.

#![cfg(unix)]
// A test waits for a node that waits for its clusters that wait for their peers: deep, and laid out as one type.
#![recursion_limit = "256"]

mod audit;
mod commands;
mod configs;
mod distribution;
mod harness;
mod joining;
mod limits;
mod many;
mod ports;
mod resuming;
mod revoking;
mod services;
mod shutdown;
