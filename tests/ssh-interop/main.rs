//! SSH's own tools over malai, unchanged: the real programs, a real `sshd`, real connections on loopback.
//!
//! A program that is missing: on CI the test fails, elsewhere it prints `not run` and why. For everything that works
//! there is a caller without the right, for whom nothing happens.

mod ansible;
mod files;
mod git;
mod rig;
mod rsh;
mod ssh;
mod tools;
