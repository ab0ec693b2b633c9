//! The program of one lane: it passes bytes between its pipes and the far end that it joins, and touches nothing else.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use malai_model::wire::copy::lanes::{JOINED, LANE_HELLO, LaneHello};

use super::room::enter;
use crate::exec::copy::CopyError;

/// Joins the copy that the first bytes of the input name, and passes bytes on until that is over.
pub(in crate::exec::copy) fn serve_lane(
    mut input: impl Read + Send + 'static,
    mut output: impl Write,
) -> Result<(), CopyError> {
    let mut hello = [0; LANE_HELLO];
    input.read_exact(&mut hello).map_err(CopyError::Broken)?;
    let hello =
        LaneHello::decode(&hello).ok_or(CopyError::OutOfTurn("it did not say which copy the stream is for"))?;
    let mut stream = enter(&hello.key, hello.lane).map_err(CopyError::Lane)?;
    output.write_all(&[JOINED]).and_then(|()| output.flush()).map_err(CopyError::Broken)?;
    let mut onward = stream.try_clone().map_err(CopyError::Lane)?;
    // It ends with the process: the far end's end is what counts.
    std::thread::Builder::new()
        .name("copy-lane".to_owned())
        .spawn(move || {
            let passed = io::copy(&mut input, &mut onward);
            tracing::debug!(?passed, "nothing more comes over a lane");
            // That the far end is gone shows at the other direction.
            _ = onward.shutdown(Shutdown::Write);
        })
        .map_err(CopyError::Lane)?;
    // How the copy ended is the main stream's to say.
    let passed = io::copy(&mut stream, &mut output);
    tracing::debug!(?passed, "a lane is over");
    Ok(())
}
