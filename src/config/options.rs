//! The options as they are written: flags, environment variables, their defaults and their ranges.
//!
//! This file is the only place where a default or a limit of an option stands. What the values mean
//! together is checked in [`Config`](super::Config).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{BoolishValueParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::AllowedOrigin;
use super::values::{parse_directory, parse_filter};
use crate::secret::Secret;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// When a push is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// After its commit is on disk.
    Always,
    /// At once; the disk follows within 100 ms. A power cut can lose acknowledged messages.
    Interval,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

// The comments of the fields are the help texts; clap drops the full stop at the end of the first paragraph.
/// Every option, as given on the command line, in the environment or in the configuration file.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory that holds everything Halley keeps
    #[arg(
        long,
        global = true,
        env = "HALLEY_DATA",
        value_name = "DIR",
        default_value = "./data",
        value_parser = parse_directory
    )]
    pub data: PathBuf,

    /// Refuse to start where there is no data yet, rather than begin a new log: for a data directory
    /// that may not be mounted
    #[arg(
        long,
        global = true,
        env = "HALLEY_MUST_EXIST",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(default_value = "false", value_parser = parse_flag(), hide_possible_values = true)]
    #[arg(help_heading = "Storage")]
    pub must_exist: bool,

    /// TOML file with options; its keys are the names of the flags
    #[arg(long, global = true, env = "HALLEY_CONFIG", value_name = "FILE")]
    #[arg(help_heading = "General")]
    pub config: Option<PathBuf>,

    /// Address for the app's clients, who show user tokens
    #[arg(long, global = true, env = "HALLEY_LISTEN", value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:8100", value_parser = parse_address, help_heading = "Network")]
    pub listen: SocketAddr,

    /// Address for the app's backend, which shows the admin key; keep it off the internet
    #[arg(
        long,
        global = true,
        env = "HALLEY_ADMIN_LISTEN",
        value_name = "ADDRESS"
    )]
    #[arg(default_value = "127.0.0.1:8000", value_parser = parse_address, help_heading = "Network")]
    pub admin_listen: SocketAddr,

    /// Origin of web pages that may use the client address: scheme and host as browsers send them,
    /// *.example.com for all hosts below a domain, or * for all; may be repeated
    #[arg(long, global = true, env = "HALLEY_CORS_ORIGIN", value_name = "ORIGIN")]
    #[arg(value_delimiter = ',', value_parser = AllowedOrigin::from_str, help_heading = "Network")]
    pub cors_origin: Vec<AllowedOrigin>,

    /// With icomet-open or in the demo: name by which the server may be reached, besides addresses,
    /// localhost and names of private networks; may be repeated
    // Who can reach an open server may do all. A name that its owner points here (DNS rebinding) must not be enough.
    #[arg(long, global = true, env = "HALLEY_ALLOWED_HOST", value_name = "HOST")]
    #[arg(value_delimiter = ',', value_parser = parse_host, help_heading = "Network")]
    pub allowed_host: Vec<String>,

    /// Also speak icomet's protocol, on the same addresses, for apps that were made for it
    #[arg(
        long,
        global = true,
        env = "HALLEY_ICOMET",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(default_value = "false", value_parser = parse_flag(), hide_possible_values = true)]
    #[arg(help_heading = "Network")]
    pub icomet: bool,

    /// With icomet: its own rules, which let everybody read every channel and, at the admin
    /// address, write
    #[arg(
        long,
        global = true,
        env = "HALLEY_ICOMET_OPEN",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(default_value = "false", value_parser = parse_flag(), hide_possible_values = true)]
    #[arg(help_heading = "Network")]
    pub icomet_open: bool,

    /// With icomet: most channels that may be open; beyond it new ones are refused, known ones go on
    // icomet's own default. A channel is for ever: about 100 bytes of disk and 1 KiB of memory, measured with 100,000.
    #[arg(
        long,
        global = true,
        env = "HALLEY_ICOMET_CHANNELS_MAX",
        value_name = "N"
    )]
    #[arg(default_value = "100000", value_parser = sized(1..=10_000_000), help_heading = "Network")]
    pub icomet_channels_max: usize,

    /// Most connections at once, both addresses together [default: what the open-file limit allows]
    // Each connection is an open file and some kilobytes; beyond the limit of open files the
    // listeners could not even refuse.
    #[arg(long, global = true, env = "HALLEY_CONNECTIONS_MAX", value_name = "N")]
    #[arg(value_parser = sized(1..=1_000_000), help_heading = "Network")]
    pub connections_max: Option<usize>,

    /// Most connections at once from one address to the client address (IPv6: from one /64 network). Leave it unset
    /// behind a proxy: there all clients have the proxy's address, and the proxy must limit them [default: no limit]
    #[arg(
        long,
        global = true,
        env = "HALLEY_CONNECTIONS_PER_ADDRESS_MAX",
        value_name = "N"
    )]
    #[arg(value_parser = sized(1..=1_000_000), help_heading = "Network")]
    pub connections_per_address_max: Option<usize>,

    /// File with the admin key [default: admin.key in the data directory, made at the first start]
    #[arg(
        long,
        global = true,
        env = "HALLEY_ADMIN_KEY_FILE",
        value_name = "FILE"
    )]
    #[arg(help_heading = "Keys")]
    pub admin_key_file: Option<PathBuf>,

    /// The admin key itself; other users of the machine can see flags, so prefer the environment
    #[arg(long, global = true, env = "HALLEY_ADMIN_KEY", value_name = "KEY")]
    #[arg(hide_env_values = true, help_heading = "Keys")]
    pub admin_key: Option<Secret>,

    /// File with the secret that signs user tokens (HS256) [default: token.secret in the data
    /// directory, made at the first start]
    #[arg(
        long,
        global = true,
        env = "HALLEY_TOKEN_SECRET_FILE",
        value_name = "FILE"
    )]
    #[arg(help_heading = "Keys")]
    pub token_secret_file: Option<PathBuf>,

    /// The secret that signs user tokens; other users of the machine can see flags, so prefer the
    /// environment
    #[arg(
        long,
        global = true,
        env = "HALLEY_TOKEN_SECRET",
        value_name = "SECRET"
    )]
    #[arg(hide_env_values = true, help_heading = "Keys")]
    pub token_secret: Option<Secret>,

    /// PEM file with a public key, RSA or Ed25519, when user tokens are signed elsewhere
    #[arg(
        long,
        global = true,
        env = "HALLEY_TOKEN_PUBLIC_KEY_FILE",
        value_name = "FILE"
    )]
    #[arg(help_heading = "Keys")]
    pub token_public_key_file: Option<PathBuf>,

    /// When a push is acknowledged: after it is on disk (always), or at once (interval), so that a
    /// power cut can lose what came in the last 100 ms
    #[arg(
        long,
        global = true,
        env = "HALLEY_DURABILITY",
        value_name = "WHEN",
        value_enum
    )]
    #[arg(
        default_value = "always",
        hide_possible_values = true,
        help_heading = "Storage"
    )]
    pub durability: Durability,

    /// Memory for the cache of the readable view
    // Below 1 MiB every read goes to disk; above 1 TiB it is a slip of the finger.
    #[arg(long, global = true, env = "HALLEY_CACHE_BYTES", value_name = "BYTES")]
    #[arg(default_value = "67108864", value_parser = range(MIB..=1024 * GIB), help_heading = "Storage")]
    pub cache_bytes: u64,

    /// Messages that are kept in memory until they are written into sled together; fewer take less memory, and more
    /// disk and processor time each
    // A conversation that gets several messages in one window takes one row for them.
    #[arg(long, global = true, env = "HALLEY_WINDOW_MESSAGES", value_name = "N")]
    #[arg(default_value = "32768", value_parser = range(1..=1_000_000), help_heading = "Storage")]
    pub window_messages: u64,

    /// Most memory, roughly, for messages that are acknowledged and not yet in sled; beyond it pushes get 503 and
    /// should be retried
    // Two windows of the largest size must fit: one that grows while the other is written.
    #[arg(
        long,
        global = true,
        env = "HALLEY_TAIL_BYTES_MAX",
        value_name = "BYTES"
    )]
    #[arg(default_value = "67108864", value_parser = range(64 * MIB..=1024 * GIB), help_heading = "Storage")]
    pub tail_bytes_max: u64,

    /// Pushes are refused while the disk has less free space than this; 0 turns the check off
    // A full disk would stop the server in the middle of a write; a segment of the journal is
    // 64 MiB and sled rewrites its own, so some of them must fit.
    #[arg(
        long,
        global = true,
        env = "HALLEY_DISK_FREE_MIN_BYTES",
        value_name = "BYTES"
    )]
    #[arg(default_value = "268435456", value_parser = range(0..=1024 * GIB), help_heading = "Storage")]
    pub disk_free_min_bytes: u64,

    /// Longest message body, as JSON
    // sled keeps values beyond about 100 KiB in files of their own, which it never syncs.
    #[arg(
        long,
        global = true,
        env = "HALLEY_BODY_BYTES_MAX",
        value_name = "BYTES"
    )]
    #[arg(default_value = "65536", value_parser = sized(1..=96 * KIB), help_heading = "Limits")]
    pub body_bytes_max: usize,

    /// Longest HTTP request body
    // Every connection may have one in memory.
    #[arg(
        long,
        global = true,
        env = "HALLEY_REQUEST_BYTES_MAX",
        value_name = "BYTES"
    )]
    #[arg(default_value = "8388608", value_parser = sized(KIB..=32 * MIB), help_heading = "Limits")]
    pub request_bytes_max: usize,

    /// Most memory for pushes that wait for the disk; beyond it they get 503 and should be retried
    // Without a bound, a disk that stalls would let pushes fill the memory.
    #[arg(
        long,
        global = true,
        env = "HALLEY_QUEUE_BYTES_MAX",
        value_name = "BYTES"
    )]
    #[arg(default_value = "67108864", value_parser = sized(KIB..=64 * GIB), help_heading = "Limits")]
    pub queue_bytes_max: usize,

    /// Most messages in one reply
    // A page is put together in memory; 10,000 messages with empty bodies are some megabytes of JSON.
    #[arg(
        long,
        global = true,
        env = "HALLEY_PAGE_MESSAGES_MAX",
        value_name = "N"
    )]
    #[arg(default_value = "1000", help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub page_messages_max: u32,

    /// Longest time a poll is held, in seconds
    // Beyond an hour no proxy or mobile network keeps a silent connection.
    #[arg(
        long,
        global = true,
        env = "HALLEY_POLL_WAIT_S_MAX",
        value_name = "SECONDS"
    )]
    #[arg(default_value = "300", value_parser = range(1..=3600), help_heading = "Limits")]
    pub poll_wait_s_max: u64,

    /// Most requests held at once for one user
    // One client in a loop must not take the connections of all others; a user has a few devices.
    #[arg(
        long,
        global = true,
        env = "HALLEY_WAITERS_PER_USER_MAX",
        value_name = "N"
    )]
    #[arg(default_value = "100", value_parser = sized(1..=100_000), help_heading = "Limits")]
    pub waiters_per_user_max: usize,

    /// Most requests of one user that are read, processed or answered at once; held requests do not count while
    /// they wait. Others wait for a second, then: 429
    // Each may have a page of 1 MiB in memory until the client has read it. A browser opens six connections.
    #[arg(
        long,
        global = true,
        env = "HALLEY_REQUESTS_PER_USER_MAX",
        value_name = "N"
    )]
    #[arg(default_value = "32", value_parser = sized(1..=100_000), help_heading = "Limits")]
    pub requests_per_user_max: usize,

    /// Time for the server to stop, in seconds: half of it for open requests to end, the rest to commit and close
    // Held requests end at once; this is for slow readers, who must not hold up a restart.
    #[arg(long, global = true, env = "HALLEY_SHUTDOWN_S", value_name = "SECONDS")]
    #[arg(default_value = "10", value_parser = range(1..=600), help_heading = "Limits")]
    pub shutdown_s: u64,

    /// What is logged: error, warn, info, debug, trace, or a filter such as halley=debug,warn
    #[arg(long, global = true, env = "HALLEY_LOG", value_name = "FILTER")]
    #[arg(default_value = "info", value_parser = parse_filter, help_heading = "Log")]
    pub log: String,

    /// How log lines look: text or json
    #[arg(
        long,
        global = true,
        env = "HALLEY_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum
    )]
    #[arg(
        default_value = "text",
        hide_possible_values = true,
        help_heading = "Log"
    )]
    pub log_format: LogFormat,
}

fn parse_flag() -> BoolishValueParser {
    BoolishValueParser::new()
}

fn range(limits: std::ops::RangeInclusive<u64>) -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(limits)
}

fn sized(limits: std::ops::RangeInclusive<u64>) -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(limits)
}

fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "an address is IP:PORT, such as 127.0.0.1:8100 or [::1]:8100")
}

/// A name only: the port does not tell one name from another.
fn parse_host(text: &str) -> Result<String, &'static str> {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    if !name.is_empty() && name.bytes().all(named) {
        Ok(name)
    } else {
        Err("a host name is letters, digits, - and ., without a port")
    }
}
