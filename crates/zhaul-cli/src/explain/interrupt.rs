//! Ctrl-C cancels the transfer, so that what was done can still be told; once more ends at once.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use zhaul::CancelToken;

/// From here on SIGINT and SIGTERM cancel.
pub(super) fn cancels(token: &CancelToken) -> io::Result<()> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, writer.try_clone()?)?;
    }
    let token = token.clone();
    std::thread::Builder::new()
        .name("zhaul-signals".to_owned())
        .spawn(move || {
            let mut signals = io::BufReader::with_capacity(1, reader);
            if wait_for_one(&mut signals) {
                token.cancel();
            }
            if wait_for_one(&mut signals) {
                // Whoever asks twice does not want to wait for a receiver that has stopped reading.
                std::process::exit(1);
            }
        })?;
    Ok(())
}

/// False if none can come any more.
fn wait_for_one(signals: &mut impl io::Read) -> bool {
    signals.read_exact(&mut [0]).is_ok()
}
