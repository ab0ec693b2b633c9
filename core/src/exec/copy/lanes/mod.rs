//! Several streams for one copy, below its frames: the two ends of a copy see a reader and a writer, as ever.
//!
//! [`lanes`] wraps the pipes of one end. [`LaneReader`] takes the words about lanes out of the frames that it passes on,
//! [`LaneWriter`] puts them between frames; once a direction is bonded they deal its bytes out to lanes and put them
//! together again (`malai_model::wire::copy::lanes`). Nothing is buffered to sort it: the main stream has the order, and
//! what is not its turn stays in its lane, which fills up and makes the other end wait.

mod join;
mod reader;
mod room;
mod shared;
mod writer;

pub(super) use join::serve_lane;
pub use reader::LaneReader;
pub(super) use room::keep_room;
use shared::Shared;
pub use writer::{LaneHandle, LaneWriter};

use std::io::{Read, Write};
use std::sync::Arc;

use malai_model::wire::copy::lanes::LaneWord;

/// How many blocks wait for each lane.
const WAITING: usize = 4;

/// Wraps the pipes of one end. `heard` is told what the other side says about lanes; it must not wait for anything.
pub fn lanes<R: Read, W: Write + Send + 'static>(
    input: R,
    output: W,
    heard: impl FnMut(&LaneHandle, LaneWord) + Send + 'static,
) -> (LaneReader<R>, LaneWriter, LaneHandle) {
    let shared = Arc::new(Shared::new(Box::new(output)));
    let handle = LaneHandle::new(shared.clone());
    let reader = LaneReader::new(input, handle.clone(), Box::new(heard));
    (reader, LaneWriter::new(shared), handle)
}

#[cfg(test)]
mod tests;
