//! Bodies of requests: bounded in bytes and in time.

use std::pin::Pin;
use std::time::Duration;

use bytes::Buf;
use futures_util::{Stream, StreamExt};
use tokio::time::timeout_at;
use warp::http::{HeaderMap, HeaderName, header};

use crate::http::response::problem::Problem;
use crate::http::socket::pace::Patience;

/// The lowest rate of a long body: less than the worst line gives.
const BYTES_PER_S: u64 = 1024;

/// A body as it arrives. The pieces belong to hyper's read buffer, so they are copied out.
pub(in crate::http) type BodyStream =
    Pin<Box<dyn Stream<Item = Result<Vec<u8>, warp::Error>> + Send>>;

/// Copies each piece out of hyper's buffer.
pub(in crate::http) fn pieces<B: Buf>(
    stream: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> BodyStream {
    Box::pin(stream.map(|piece| {
        piece.map(|mut data| {
            let mut copy = vec![0; data.remaining()];
            data.copy_to_slice(&mut copy);
            copy
        })
    }))
}

/// No body.
pub(in crate::http) fn none() -> BodyStream {
    Box::pin(futures_util::stream::empty())
}

/// Refuses a body that is not as it is: what is compressed would be taken for its content.
pub(in crate::http) fn plain(headers: &HeaderMap) -> Result<(), Problem> {
    let only = |name: HeaderName, word: &str| {
        let mut lines = headers.get_all(name).iter();
        lines.all(|line| {
            let line = line.to_str().unwrap_or("?");
            line.split(',')
                .all(|coding| coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case(word))
        })
    };
    if !only(header::TRANSFER_ENCODING, "chunked") {
        return Err(Problem::TransferCoding);
    }
    if !only(header::CONTENT_ENCODING, "identity") {
        return Err(Problem::ContentCoding);
    }
    Ok(())
}

/// Whether a head says that a body follows.
pub(in crate::http) fn is_announced(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Reads a body whole: at most `bytes_max`, no pause longer than `stall`, and no trickle.
pub(in crate::http) async fn read(
    body: &mut BodyStream,
    headers: &HeaderMap,
    bytes_max: usize,
    stall: Duration,
) -> Result<Vec<u8>, Problem> {
    let too_large = Problem::TooLarge {
        what: "the request's body",
        limit: bytes_max,
        unit: " bytes",
    };
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Before any of it is read, so that the client can stop sending.
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(too_large);
    }
    let patience = Patience {
        pause: stall,
        bytes_per_s: BYTES_PER_S,
    };
    let mut pace = patience.begin();
    let mut whole = Vec::new();
    loop {
        let next = timeout_at(pace.due(), body.next()).await;
        if let Ok(Some(Ok(piece))) = &next {
            pace.add(piece.len());
        }
        match next {
            Err(_) => return Err(Problem::Timeout),
            Ok(None) => return Ok(whole),
            Ok(Some(Err(_))) => {
                return Err(Problem::BadRequest(
                    "the request's body broke off or is not framed as its head says".to_owned(),
                ));
            }
            Ok(Some(Ok(piece))) if whole.len() + piece.len() > bytes_max => return Err(too_large),
            // Most bodies come in one piece, which is not copied once more.
            Ok(Some(Ok(piece))) if whole.is_empty() => whole = piece,
            Ok(Some(Ok(piece))) => whole.extend_from_slice(&piece),
        }
    }
}
