//! Pages for people, from inside the program: the admin page, the demo, and the client for JavaScript.
//!
//! They load nothing from elsewhere and run nothing that does not stand in their own files, and the policy sent with
//! each tells the browser to keep it so. They are no interface: the `OpenAPI` document does not list them.

use std::sync::OnceLock;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::http::api::demo;
use crate::http::context::App;
use crate::http::endpoint::{Endpoint, Handling, Verb, later, now};
use crate::http::listener_kind::ListenerKind;
use crate::http::request::call::Call;
use crate::http::response::reply::Reply;

/// What a page may do: run and show what this listener serves, and talk to it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Kept by browsers, but asked for again each time: a new version of the program must show at once.
const CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// What a page is asked for with may hold a name, and is nobody else's business.
const REFERRER: (HeaderName, HeaderValue) = (
    header::REFERRER_POLICY,
    HeaderValue::from_static("no-referrer"),
);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file inside the program.
struct File {
    content_type: &'static str,
    text: &'static str,
    tag: OnceLock<HeaderValue>,
}

macro_rules! files {
    ($($name:ident $content_type:ident $path:literal;)*) => {
        $(static $name: File = File {
            content_type: $content_type,
            text: include_str!(concat!("../web/", $path)),
            tag: OnceLock::new(),
        };)*
    };
}

files! {
    CLIENT SCRIPT "client/halley.js";
    ADMIN_PAGE HTML "admin/index.html";
    ADMIN_STYLE CSS "admin/admin.css";
    ADMIN_SCRIPT SCRIPT "admin/admin.js";
    ADMIN_LIVE SCRIPT "admin/admin-live.js";
    ADMIN_NODES SCRIPT "admin/admin-nodes.js";
    DEMO_PAGE HTML "demo/index.html";
    DEMO_STYLE CSS "demo/demo.css";
    DEMO_SCRIPT SCRIPT "demo/demo.js";
    DEMO_CHATS SCRIPT "demo/demo-chats.js";
    DEMO_NODES SCRIPT "demo/demo-nodes.js";
    DEMO_TIMES SCRIPT "demo/demo-times.js";
}

/// What one listener has beside its interface.
pub(super) fn of(app: &App, kind: ListenerKind) -> impl Iterator<Item = &'static Endpoint> {
    let own: &[Endpoint] = match kind {
        ListenerKind::Admin => ADMIN,
        ListenerKind::Client if app.demo => DEMO,
        ListenerKind::Client => &[],
    };
    own.iter().chain(BOTH)
}

const fn page(path: &'static str, handler: fn(Call) -> Handling) -> Endpoint {
    Endpoint::new(Verb::Get, path, handler, "A file for browsers")
}

const BOTH: &[Endpoint] = &[page("/halley.js", |call| give(&call, &CLIENT))];

const ADMIN: &[Endpoint] = &[
    page("/", |call| give(&call, &ADMIN_PAGE)),
    page("/admin.css", |call| give(&call, &ADMIN_STYLE)),
    page("/admin.js", |call| give(&call, &ADMIN_SCRIPT)),
    page("/admin-live.js", |call| give(&call, &ADMIN_LIVE)),
    page("/admin-nodes.js", |call| give(&call, &ADMIN_NODES)),
];

const DEMO: &[Endpoint] = &[
    page("/", |call| give(&call, &DEMO_PAGE)),
    page("/demo.css", |call| give(&call, &DEMO_STYLE)),
    page("/demo.js", |call| give(&call, &DEMO_SCRIPT)),
    page("/demo-chats.js", |call| give(&call, &DEMO_CHATS)),
    page("/demo-nodes.js", |call| give(&call, &DEMO_NODES)),
    page("/demo-times.js", |call| give(&call, &DEMO_TIMES)),
    Endpoint::new(
        Verb::Post,
        "/demo/join",
        |call| later(demo::join(call)),
        "Be a user of the demo",
    )
    .takes("DemoJoin"),
];

fn give(call: &Call, file: &'static File) -> Handling {
    now(Ok(file.reply(&call.headers)))
}

impl File {
    /// The file, or that the browser has it already.
    fn reply(&'static self, asked: &HeaderMap) -> Reply {
        let tag = self.tag();
        let known = asked
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .any(|known| *tag == known.trim().trim_start_matches("W/"));
        let reply = if known {
            Reply::parts(StatusCode::NOT_MODIFIED, Vec::new())
        } else {
            let text = Bytes::from_static(self.text.as_bytes());
            Reply::parts(StatusCode::OK, vec![text])
        };
        Reply {
            content_type: (!known).then_some(self.content_type),
            cache: CACHE,
            more: vec![
                (header::ETAG, tag.clone()),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                REFERRER,
            ],
            ..reply
        }
    }

    /// Names the content.
    fn tag(&self) -> &HeaderValue {
        self.tag.get_or_init(|| {
            let hash = Sha256::digest(self.text.as_bytes());
            let digits = hash.iter().take(8).map(|byte| format!("{byte:02x}"));
            let tag = format!("\"{}\"", digits.collect::<String>());
            tag.parse().expect("hexadecimal digits stand in a header")
        })
    }
}
