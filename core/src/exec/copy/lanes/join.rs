//! The program of one lane: it passes bytes between its pipes and the far end that it joins, and touches nothing else.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use malai_model::wire::copy::lanes::{JOINED, LANE_HELLO, LaneHello};

use super::room::enter;
use crate::exec::copy::CopyError;

/// How much is passed on at once.
const BLOCK: usize = 256 * 1024;

/// Joins the copy that the first bytes of the input name, and passes bytes on until that is over.
pub(in crate::exec::copy) fn serve_lane(
    mut input: impl Read + Send + 'static,
    mut output: impl Write,
) -> Result<(), CopyError> {
    let mut hello = [0; LANE_HELLO];
    input.read_exact(&mut hello).map_err(CopyError::Broken)?;
    let hello = LaneHello::decode(&hello)
        .ok_or(CopyError::OutOfTurn("it did not say which copy the stream is for"))?;
    let mut stream = enter(&hello.key, hello.lane).map_err(CopyError::Lane)?;
    output.write_all(&[JOINED]).and_then(|()| output.flush()).map_err(CopyError::Broken)?;
    let mut onward = stream.try_clone().map_err(CopyError::Lane)?;
    // It ends with the process: the far end's end is what counts.
    std::thread::Builder::new()
        .name("copy-lane".to_owned())
        .spawn(move || {
            let passed = pass(&mut input, &mut onward);
            tracing::debug!(?passed, "nothing more comes over a lane");
            // That the far end is gone shows at the other direction.
            _ = onward.shutdown(Shutdown::Write);
        })
        .map_err(CopyError::Lane)?;
    // How the copy ended is the main stream's to say.
    let passed = pass(&mut stream, &mut output);
    tracing::debug!(?passed, "a lane is over");
    Ok(())
}

/// Passes bytes on as they come. By hand: what the standard library does between two descriptors (`splice`) can hold
/// one direction of a socket up while the other one waits.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&block[..count])?;
        to.flush()?;
    }
}
