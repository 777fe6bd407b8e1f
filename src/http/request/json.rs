//! Bodies of requests as JSON.

use serde::Deserialize;

use super::query::beginning;
use crate::http::response::problem::Problem;

/// What is repeated of a parser's complaint.
const ERROR_BYTES_MAX: usize = 200;

/// Reads JSON; the error names the field that is wrong, and says where.
pub(in crate::http) fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(text).map_err(|error| {
        // Read once more, as following the fields takes time that right bodies need not spend.
        let mut reader = serde_json::Deserializer::from_slice(text);
        let named = serde_path_to_error::deserialize::<_, T>(&mut reader).err();
        let field = named.map(|error| error.path().to_string());
        let said = match field.filter(|field| field != ".") {
            Some(field) => format!("`{field}`: {error}"),
            None => error.to_string(),
        };
        // serde repeats what it found, which may be long.
        Problem::BadJson(beginning(&said, ERROR_BYTES_MAX).to_owned())
    })
}
