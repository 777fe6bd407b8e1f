//! The configuration: options from four places become one checked, typed [`Config`].
//!
//! A flag wins over an environment variable, that over the configuration file, that over the default.
//! [`load`] parses once to learn the file's name and once more with the file's values as defaults, so that
//! one parser does all the checking. After it, nobody sees text: times are `Duration`, sizes are numbers
//! within their limits, and what cannot go together has been refused.

mod auth;
mod environment;
mod file;
mod limits;
mod options;
mod origin;
mod show;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

pub use self::auth::{AuthConfig, KeyError, Keys, TokenKey};
pub use self::file::FileError;
pub use self::options::{Durability, LogFormat, Options};
pub use self::origin::AllowedOrigin;
pub use self::show::{OptionRow, Setting, Source, option_table, settings};
use crate::secret;

/// What the queue counts beside the bodies of the largest request: 1,000 messages or 10,000 names, each with a
/// channel to open.
const QUEUED_OVERHEAD_BYTES: usize = 2 << 20;
/// sled writes segments of 8 MiB and a snapshot while it closes and opens.
const DISK_FREE_LEAST: u64 = 32 << 20;
/// Room for names, keys and the JSON around the largest body.
const REQUEST_OVERHEAD_BYTES: usize = 8 * 1024;

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Whether a start without data is refused.
    pub must_exist: bool,
    /// Address of the client listener.
    pub listen: SocketAddr,
    /// Address of the admin listener.
    pub admin_listen: SocketAddr,
    /// Pages that may use the client listener.
    pub cors_origins: Vec<AllowedOrigin>,
    /// Names by which a server that is open to all may be reached.
    pub allowed_hosts: Vec<String>,
    /// Whether icomet's protocol is spoken, and under which rules.
    pub icomet: Option<IcometRules>,
    /// Admin key and token keys.
    pub auth: AuthConfig,
    /// What the store needs.
    pub store: StoreConfig,
    /// Bounds of queues, bodies, pages and waits.
    pub limits: Limits,
    /// How long a stop may take before what is open is cut.
    pub shutdown: Duration,
    /// The log.
    pub log: LogConfig,
    /// Whether this is `halley demo`; no option sets it.
    pub demo: bool,
}

/// Who may do what by icomet's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcometRules {
    /// As everywhere: users show tokens, the backend its key.
    Strict,
    /// icomet's own: who reaches the address may do all.
    Open,
}

/// What the store needs.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// When a push is acknowledged.
    pub durability: Durability,
    /// sled's cache.
    pub cache_bytes: u64,
    /// Messages that are written into sled together.
    pub window_messages: u64,
    /// Most memory for what is acknowledged and not yet in sled.
    pub tail_bytes_max: u64,
    /// Pushes are refused below this much free disk space; 0 is never.
    pub disk_free_min_bytes: u64,
}

/// Bounds of queues, bodies, pages and waits. Why each is what it is stands with its option.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest message body.
    pub body_bytes_max: usize,
    /// Longest HTTP request body.
    pub request_bytes_max: usize,
    /// Most memory for pushes that wait for the disk; at least one largest request.
    pub queue_bytes_max: usize,
    /// Most messages in one reply.
    pub page_messages_max: usize,
    /// Longest time a poll is held.
    pub poll_wait_max: Duration,
    /// Most requests held at once for one user.
    pub waiters_per_user_max: usize,
    /// Most requests of one user that are in work at once.
    pub requests_per_user_max: usize,
    /// Most connections of one address at once on the client listener; none is no limit.
    pub connections_per_address_max: Option<usize>,
    /// Most connections at once, both listeners together.
    pub connections_max: usize,
    /// Most channels that icomet's protocol opens.
    pub icomet_channels_max: usize,
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A filter in the syntax of `tracing_subscriber::EnvFilter`; known to parse.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// Why there is no configuration. `main` answers each with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag or environment variable is wrong; or help was asked for, which clap reports the same way.
    #[error(transparent)]
    Options(#[from] clap::Error),
    /// The configuration file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key that is given or named cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Values that are right each, but not together.
    #[error("{0}")]
    Together(String),
}

/// Parses `arguments` (the first is the program's name) with the layers under them. `command` must contain
/// [`Options`]. Returns what clap matched, and which options the file has set.
pub fn load(
    command: &Command,
    arguments: &[OsString],
) -> Result<(ArgMatches, FromFile), ConfigError> {
    let matches = matches_of(command, arguments)?;
    if let Some(reason) = environment::empty_in_effect(&matches) {
        return Err(together(reason));
    }
    let Some(path) = matches.get_one::<PathBuf>("config") else {
        return Ok((matches, FromFile(Vec::new())));
    };
    let values = file::read(path, &flags_command())?;
    let ids: Vec<String> = values.keys().map(|key| key.replace('-', "_")).collect();
    let layered =
        ids.iter()
            .zip(values.into_values())
            .fold(command.clone(), |command, (id, texts)| {
                command
                    .mut_arg(id, |arg| arg.default_values(texts.clone()))
                    .mut_subcommands(|sub| with_default(sub, id, &texts))
            });
    Ok((layered.try_get_matches_from(arguments)?, FromFile(ids)))
}

/// What clap matches; a variable that it refuses is told by its name.
fn matches_of(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, ConfigError> {
    let error = match command.clone().try_get_matches_from(arguments) {
        Ok(matches) => return Ok(matches),
        Err(error) => error,
    };
    // Help and version come as errors, too. With the flags alone, a wrong one is refused again.
    let by_variable = error.use_stderr()
        && command
            .clone()
            .mut_args(without_variable)
            .mut_subcommands(|sub| sub.mut_args(without_variable))
            .try_get_matches_from(arguments)
            .is_ok();
    match environment::wrong(&flags_command()) {
        Some(reason) if by_variable => Err(together(reason)),
        _ => Err(error.into()),
    }
}

fn without_variable(arg: Arg) -> Arg {
    arg.env(Resettable::Reset)
}

/// Logs what is set and has no effect, or should not be as it is. Commands have variables of their own beside those of
/// the options, so `command` is the program's with all of them.
pub fn warn(command: &Command, settings: &[Setting]) {
    let unknown = environment::unknown_variables(command);
    if !unknown.is_empty() {
        tracing::warn!(
            variables = unknown.join(", "),
            "unknown variables of the environment are ignored"
        );
    }
    let holds_key = |setting: &Setting| setting.secret && setting.source == Source::File;
    let file = settings.iter().find(|setting| setting.name == "config");
    if settings.iter().any(holds_key)
        && let Some(path) = file.and_then(|setting| setting.values.first())
    {
        secret::warn_if_readable(Path::new(path));
    }
}

/// A subcommand may have its own copy of an option (see the command line), which needs the default too.
fn with_default(command: Command, id: &str, texts: &[String]) -> Command {
    if command.get_arguments().any(|arg| arg.get_id() == id) {
        command.mut_arg(id, |arg| arg.default_values(texts.to_vec()))
    } else {
        command
    }
}

/// Ids of the options that the configuration file has set.
#[derive(Debug)]
pub struct FromFile(Vec<String>);

/// The options alone, as a command that takes nothing else.
pub fn options_command() -> Command {
    Options::augment_args(Command::new("halley"))
}

/// The same without their variables.
fn flags_command() -> Command {
    options_command().mut_args(without_variable)
}

/// Clap's message without the usage lines below it and the word before it.
pub(crate) fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default().trim();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

impl Config {
    /// Checks what the values mean together.
    pub fn from_options(options: Options) -> Result<Self, ConfigError> {
        let limits = bounds(&options)?;
        let auth = AuthConfig::from_options(&options)?;
        if options.listen == options.admin_listen && options.listen.port() != 0 {
            let both = options.listen;
            return Err(together(format!(
                "listen and admin-listen are both {both}: they must differ"
            )));
        }
        let icomet = match (options.icomet, options.icomet_open) {
            (true, false) => Some(IcometRules::Strict),
            (true, true) => Some(IcometRules::Open),
            (false, false) => None,
            (false, true) => return Err(together("icomet-open needs icomet".to_owned())),
        };
        Ok(Self {
            icomet,
            listen: options.listen,
            admin_listen: options.admin_listen,
            store: StoreConfig {
                durability: options.durability,
                cache_bytes: options.cache_bytes,
                window_messages: options.window_messages,
                tail_bytes_max: options.tail_bytes_max,
                disk_free_min_bytes: options.disk_free_min_bytes,
            },
            limits,
            shutdown: Duration::from_secs(options.shutdown_s),
            log: LogConfig {
                filter: options.log,
                format: options.log_format,
            },
            auth,
            cors_origins: options.cors_origin,
            allowed_hosts: options.allowed_host,
            data: options.data,
            must_exist: options.must_exist,
            demo: false,
        })
    }

    /// The defaults over this data directory, whatever the environment says. For servers inside a test.
    pub fn default_for(data: &Path) -> Self {
        let mut options = flags_command()
            .try_get_matches_from(["halley"])
            .and_then(|matches| Options::from_arg_matches(&matches))
            .expect("no option is required and every default is within its limits");
        data.clone_into(&mut options.data);
        Self::from_options(options).expect("the defaults go together")
    }

    /// Checks what only the server needs, and what depends on this machine: that the keys which are given or
    /// named can be used, and that the limits of the process leave it room. Other commands read the same
    /// configuration under other limits.
    pub fn check_for_server(&self) -> Result<(), ConfigError> {
        self.auth.check()?;
        limits::check(self.limits.connections_max).map_err(together)
    }
}

fn together(reason: String) -> ConfigError {
    ConfigError::Together(reason)
}

fn bounds(options: &Options) -> Result<Limits, ConfigError> {
    let smallest_request = options.body_bytes_max + REQUEST_OVERHEAD_BYTES;
    if options.request_bytes_max < smallest_request {
        return Err(together(format!(
            "request-bytes-max is {}: with body-bytes-max {} it must be at least {smallest_request}, \
             so that a message of that size can be sent",
            options.request_bytes_max, options.body_bytes_max
        )));
    }
    if (1..DISK_FREE_LEAST).contains(&options.disk_free_min_bytes) {
        return Err(together(format!(
            "disk-free-min-bytes is {}: it must be 0, which keeps nothing free, or at least \
             {DISK_FREE_LEAST}, which is what a stop and the next start need",
            options.disk_free_min_bytes
        )));
    }
    let largest_queued = options.request_bytes_max + QUEUED_OVERHEAD_BYTES;
    if options.queue_bytes_max < largest_queued {
        return Err(together(format!(
            "queue-bytes-max is {}: with request-bytes-max {} it must be at least {largest_queued}, so \
             that the largest request fits",
            options.queue_bytes_max, options.request_bytes_max
        )));
    }
    Ok(Limits {
        body_bytes_max: options.body_bytes_max,
        request_bytes_max: options.request_bytes_max,
        queue_bytes_max: options.queue_bytes_max,
        page_messages_max: usize::try_from(options.page_messages_max).unwrap_or(usize::MAX),
        poll_wait_max: Duration::from_secs(options.poll_wait_s_max),
        waiters_per_user_max: options.waiters_per_user_max,
        requests_per_user_max: options.requests_per_user_max,
        connections_per_address_max: options.connections_per_address_max,
        connections_max: options
            .connections_max
            .unwrap_or_else(limits::connections_default),
        icomet_channels_max: options.icomet_channels_max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::KeySource;

    #[test]
    fn defaults_go_together_and_keep_their_keys_in_the_data_directory() {
        let config = Config::default_for(Path::new("/somewhere"));
        assert_eq!(config.limits.body_bytes_max, 65_536);
        assert_eq!(config.limits.poll_wait_max, Duration::from_secs(300));
        assert!(config.check_for_server().is_ok());
        match (&config.auth.admin_key, &config.auth.tokens) {
            (KeySource::DataFile(admin), TokenKey::Secret(KeySource::DataFile(token))) => {
                assert_eq!(admin, Path::new("/somewhere/admin.key"));
                assert_eq!(token, Path::new("/somewhere/token.secret"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_has_a_flag_and_an_environment_variable_of_its_name() {
        for row in option_table() {
            assert_eq!(
                row.env,
                format!("HALLEY_{}", row.name.replace('-', "_").to_uppercase())
            );
            assert!(!row.help.is_empty(), "{} has no help", row.name);
        }
    }

    #[test]
    fn a_flag_is_on_or_off_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halley.toml");
        let rules = |file: &str, flags: &[&str]| {
            std::fs::write(&path, file).unwrap();
            let config = format!("--config={}", path.display());
            let arguments = ["halley", &config].into_iter().chain(flags.iter().copied());
            let arguments: Vec<OsString> = arguments.map(OsString::from).collect();
            let (matches, _) = load(&flags_command(), &arguments)?;
            let options = Options::from_arg_matches(&matches)?;
            Config::from_options(options).map(|config| config.icomet)
        };
        let (strict, open) = (Some(IcometRules::Strict), Some(IcometRules::Open));
        for (file, flags, expected) in [
            ("", &[][..], None),
            ("", &["--icomet"], strict),
            ("", &["--icomet=false"], None),
            ("icomet = true", &[], strict),
            ("icomet = true\nicomet-open = \"yes\"", &[], open),
            ("icomet = true", &["--icomet=off"], None),
            ("icomet-open = true", &["--icomet"], open),
        ] {
            assert_eq!(rules(file, flags).unwrap(), expected, "{file} {flags:?}");
        }
        let error = rules("icomet-open = true", &[]).unwrap_err().to_string();
        assert_eq!(error, "icomet-open needs icomet");
    }

    #[test]
    fn a_suggestion_is_never_an_option_that_the_file_cannot_have() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halley.toml");
        for (text, reason) in [
            ("confg = 'x'", "unknown key confg; the command"),
            ("config = 'x'", "unknown key config; the command"),
            ("lisen = 'x'", "did you mean listen?"),
            ("body_bytes_max = 1", "did you mean body-bytes-max?"),
            ("zzz = 1", "shows every key"),
            ("data = ['x']", "takes one value, not an array"),
            ("cors-origin = [1]", "takes an array of strings"),
            ("icomet = 2", "key icomet: invalid value"),
            ("icomet = ['x']", "takes one value, not an array"),
            ("log = true", "takes a string or a whole number"),
            ("[limits]\nbody-bytes-max = 1", "key limits is a table"),
            ("data", "TOML parse error"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = file::read(&path, &flags_command()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(error.contains("halley.toml"), "{text}: {error}");
        }
    }
}
