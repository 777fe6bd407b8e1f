//! nginx with nchan, as the peer: one process, messages in memory only, long polls.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Endless, Holding, Http, Server, connect, free_address};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const NGINX: &str = "/usr/sbin/nginx";

/// Runs until it is dropped.
pub(crate) struct Nchan {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nchan {
    /// Whether it is there to be compared; says how it gets there.
    pub(crate) fn is_installed() -> bool {
        let found = Path::new(MODULE).exists() && Path::new(NGINX).exists();
        if !found {
            println!(
                "nginx with nchan is not installed: no comparison. On Debian and Ubuntu: \
                 apt-get install nginx libnginx-mod-nchan"
            );
        }
        found
    }
}

impl Server for Nchan {
    const NAME: &'static str = "nginx + nchan";

    fn start() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let address = free_address();
        let root = folder.path().display();
        let settings = format!(
            "load_module {MODULE};\n\
             daemon off;\nmaster_process off;\nworker_processes 1;\npid {root}/pid;\nerror_log stderr crit;\n\
             events {{ worker_connections 19000; }}\n\
             http {{\n\
               access_log off;\nkeepalive_timeout 3600;\nkeepalive_requests 1000000000;\ntcp_nodelay on;\n\
               client_body_temp_path {root}/body;\nproxy_temp_path {root}/proxy;\nfastcgi_temp_path {root}/fastcgi;\n\
               uwsgi_temp_path {root}/uwsgi;\nscgi_temp_path {root}/scgi;\nnchan_shared_memory_size 512M;\n\
               server {{\n\
                 listen {address} backlog=20000;\n\
                 location = /pub {{ nchan_publisher; nchan_channel_id $arg_id; nchan_message_buffer_length 100; nchan_message_timeout 1h; }}\n\
                 location = /sub {{ nchan_subscriber longpoll; nchan_channel_id $arg_id; nchan_subscriber_first_message newest; nchan_subscriber_timeout 0; }}\n\
                 location = /sse {{ nchan_subscriber eventsource; nchan_channel_id $arg_id; nchan_subscriber_first_message newest; nchan_subscriber_timeout 0; }}\n\
                 location = /ws {{ nchan_subscriber websocket; nchan_channel_id $arg_id; nchan_subscriber_first_message newest; nchan_subscriber_timeout 0; nchan_websocket_ping_interval 300; }}\n\
                 location = /status {{ nchan_stub_status; }}\n\
               }}\n\
             }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings).expect("the folder is ours");
        let child = Command::new(NGINX)
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let deadline = Instant::now() + super::PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::yield_now();
        }
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn backend(&self) -> Http {
        connect(self.address).await
    }

    async fn ready(&self, _: &[String], _: Option<&str>) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    fn push(&self, to: &str, _: bool, body: &str) -> String {
        format!(
            "POST /pub?id={to} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

impl Holding for Nchan {
    async fn client(&self) -> Http {
        connect(self.address).await
    }

    fn poll(&self, user: &str, group: Option<&str>, _: Option<&str>) -> String {
        let channel = group.unwrap_or(user);
        format!("GET /sub?id={channel} HTTP/1.1\r\nhost: bench\r\n\r\n")
    }

    fn listen(&self, how: Endless, user: &str) -> String {
        let path = match how {
            Endless::Events => "sse",
            Endless::Socket => "ws",
        };
        let headers = how.headers();
        format!("GET /{path}?id={user} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n")
    }

    fn cursor(_: &str) -> Option<String> {
        None
    }

    async fn held(&self) -> usize {
        let mut backend = self.backend().await;
        let request = "GET /status HTTP/1.1\r\nhost: bench\r\n\r\n";
        let reply = backend.ask(request).await;
        let line = reply
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("subscribers: "))
            .expect("it counts subscribers");
        line.trim().parse().expect("it is a number")
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
