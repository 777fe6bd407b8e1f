//! `halley serve`: runs the server until it is told to stop.

use super::Failure;
use crate::config::Config;

pub(super) fn run(config: Config) -> Result<(), Failure> {
    config.check_for_server()?;
    crate::server::serve(config, crate::server::greet).map_err(|error| Failure::Serve(error.into()))
}
