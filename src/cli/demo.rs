//! `halley demo`: a real server with a chat page, over a temporary directory that is removed at the end.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use serde_json::value::to_raw_value;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::Failure;
use crate::config::{Config, Options, Setting, Source, TokenKey};
use crate::http::EVERYONE;
use crate::hub::{GroupChange, HistoryMode, Hub};
use crate::logging::Log;
use crate::model::{Body, Draft, GroupName, Receiver, UserName};
use crate::secret::{self, KeySource, Secret};
use crate::server::{self, Hooks, ServeError, Server};
use crate::signals::Hangup;

/// Digits of the directory's name that are drawn at random.
const NAME_DIGITS: usize = 12;
/// What the first user finds.
const WELCOME: &str = "Welcome. Open this page in a second tab under another name, and write to each other. \
    Every message is on disk before it is shown: “Timing” says how long that took.";

/// A directory that goes away with its owner.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// Made for its owner only, under a name that nobody can know before.
    fn make() -> Result<Self, Failure> {
        let random = Secret::random()?;
        let digits: String = random.expose().chars().take(NAME_DIGITS).collect();
        let path = std::env::temp_dir().join(format!("halley-demo-{digits}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Failure::Io("make a temporary directory", e))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            warn!(path = %self.0.display(), error = %e, "the demo's directory is left behind");
        }
    }
}

pub(super) fn run(
    mut options: Options,
    settings: &[Setting],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let folder = Folder::make()?;
    options.data = folder.0.join("data");
    options.must_exist = false;
    for (name, address) in [
        ("listen", &mut options.listen),
        ("admin-listen", &mut options.admin_listen),
    ] {
        let demanded = |of: &Setting| of.name == name && of.source == Source::Flag;
        if !settings.iter().any(demanded) {
            free_port(address);
        }
    }
    let mut config = Config::from_options(options)?;
    config.demo = true;
    let log = Log::start(&config.log);
    crate::config::warn(&super::command(), settings);
    refuse_foreign_tokens(&config.auth.tokens)?;
    config.check_for_server()?;
    let ready = |server: &Server, config: &Config| {
        Handle::current()
            .block_on(furnish(server.hub()))
            .map_err(|e| ServeError::Io("make the demo's group", io::Error::other(e)))?;
        log.flush();
        if let Err(e) = greet(server, config, out) {
            warn!(error = %e, "cannot print the addresses");
        }
        Ok(())
    };
    let hooks = Hooks {
        ready,
        reload: || info!("a demo has nothing to reload"),
        hangup: Hangup::of_terminal(),
    };
    server::serve(config, hooks).map_err(|error| Failure::Serve(error.into()))
}

/// Takes another port where this one is taken, as by the server that somebody has just started.
fn free_port(address: &mut SocketAddr) {
    let taken = |e: io::Error| e.kind() == io::ErrorKind::AddrInUse;
    if TcpListener::bind(*address).is_err_and(taken) {
        address.set_port(0);
    }
}

/// Whoever comes is given a token for any user: so nobody but this demo may take it.
fn refuse_foreign_tokens(tokens: &TokenKey) -> Result<(), Failure> {
    let option = match tokens {
        TokenKey::Secret(KeySource::DataFile(_)) => return Ok(()),
        TokenKey::Secret(KeySource::File(_)) => "token-secret-file",
        TokenKey::Secret(KeySource::Given(_, option)) => option,
        TokenKey::PublicKeyFile(_) => "token-public-key-file",
    };
    Err(Failure::Usage(format!(
        "the demo makes a token for any user whom a visitor names, with a secret of its own: it cannot run with {option}"
    )))
}

/// The group for everyone, whose history newcomers may read, and a first message in it.
async fn furnish(hub: &Hub) -> Result<(), crate::error::Error> {
    let group = GroupName::parse(EVERYONE).expect("it keeps the rule for names");
    let change = GroupChange::Set {
        members: None,
        history: Some(HistoryMode::All),
    };
    hub.change_group(group.clone(), change).await?;
    let body = to_raw_value(WELCOME).expect("a text is JSON");
    let welcome = Draft {
        from: UserName::parse("halley").expect("it keeps the rule for names"),
        to: Receiver::Group(group),
        body: Body::from_json(&body).expect("every client can read a text"),
        key: None,
        by_user: false,
    };
    for receipt in hub.push(vec![welcome]).await? {
        receipt?;
    }
    Ok(())
}

/// Says what to open, and how to send from elsewhere. The key may be shown: it is thrown away with the rest.
fn greet(server: &Server, config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let (client, admin) = server.addresses()?;
    let key = match &config.auth.admin_key {
        source @ KeySource::DataFile(_) => {
            let key = source.load().map_err(io::Error::other)?;
            key.expose().to_owned()
        }
        KeySource::File(path) => secret::shell_reading(path),
        KeySource::Given(..) => "$HALLEY_ADMIN_KEY".to_owned(),
    };
    writeln!(
        out,
        "Halley {version}, a demo that keeps nothing: all of it is removed at the end (Ctrl-C).\n\
         \n  chat   http://{client}/   (open it twice, under two names)\
         \n  admin  http://{admin}/   (its key: {key})\n\
         \nA message from a terminal, which shows up on the page:\n\
         \ncurl http://{admin}/v1/groups/{EVERYONE}/messages -H \"Authorization: Bearer {key}\" \
         -d '{{\"from\":\"terminal\",\"body\":\"Hello from a terminal\"}}'\n",
        version = env!("CARGO_PKG_VERSION"),
    )?;
    if !client.ip().is_loopback() {
        writeln!(
            out,
            "Whoever reaches {client} may be any user: show it to friends only.\n"
        )?;
    }
    out.flush()
}
