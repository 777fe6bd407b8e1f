//! Stands in for the server.

/// Not there yet.
pub fn serve(_config: crate::config::Config) -> Result<(), std::io::Error> {
    Err(std::io::Error::other(
        "the server is not part of this build",
    ))
}
