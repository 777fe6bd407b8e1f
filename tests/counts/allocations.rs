//! Allocations, of a server in this process.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Parser;
use halley::config::{Config, Options};
use halley::http::Timeouts;
use halley::hub::Hub;
use halley::model::Transport;
use halley::server::Server;
use stats_alloc::Region;
use tokio::runtime::Runtime;

use crate::session::Session;
use crate::{ADMIN_KEY, ALLOCATIONS_TOLERATED, ALLOCATOR, LINES, TOKEN_SECRET, Work};

/// Before it is counted: what is made once is made.
const WARM: u32 = 300;
const TURNS: u32 = 1000;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// A server with all defaults; it ends with the runtime.
fn serve(data: &Path, runtime: &Runtime) -> ([SocketAddr; 2], Hub) {
    let data = data.to_str().unwrap();
    fs::create_dir(data).unwrap();
    let keys = [("admin.key", ADMIN_KEY), ("token.secret", TOKEN_SECRET)];
    for (name, key) in keys {
        let path = Path::new(data).join(name);
        fs::write(&path, key).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    let arguments = [
        "halley",
        "--data",
        data,
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let options = Cli::parse_from(arguments).options;
    let config = Config::from_options(options).unwrap();
    let _entered = runtime.enter();
    let server = Server::open(&config, Timeouts::default()).unwrap();
    let (client, admin) = server.addresses().unwrap();
    let hub = server.hub().clone();
    drop(runtime.spawn(server.run(std::future::pending())));
    ([client, admin], hub)
}

/// Allocations a turn.
fn count(work: Work) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let (addresses, hub) = serve(&folder.path().join("data"), &runtime);
    let parked = || {
        while hub.held(Transport::Poll) == 0 {
            std::thread::yield_now();
        }
    };
    let mut session = Session::begin(work, addresses);
    for _ in 0..WARM {
        session.turn(&parked);
    }
    // All together: what a turn leaves to be done after its reply falls into the next one.
    let region = Region::new(ALLOCATOR);
    for _ in 0..TURNS {
        session.turn(&parked);
    }
    let found = region.change();
    drop(runtime);
    hub.close();
    let found = u32::try_from(found.allocations + found.reallocations).unwrap();
    f64::from(found) / f64::from(TURNS)
}

#[test]
fn a_push_and_its_delivery_allocate_no_more_than_their_lines() {
    let mut over = Vec::new();
    for line in LINES {
        let found = count(line.work);
        let told = format!(
            "{:?}: {found:.2} allocations (line {})",
            line.work, line.allocations
        );
        eprintln!("{told}");
        if found > line.allocations + ALLOCATIONS_TOLERATED {
            over.push(told);
        }
    }
    assert!(over.is_empty(), "over the line: {over:#?}");
}
