//! How each proxy is started: one thread, no logs, timeouts that no run reaches.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{Contender, Launcher};

impl Launcher {
    pub(super) fn proxy_command(
        &self,
        contender: Contender,
        to: SocketAddrV4,
        listen: SocketAddrV4,
        home: &Path,
    ) -> anyhow::Result<Command> {
        let missing = || format!("{} is not installed", contender.name());
        match contender {
            Contender::Zhaul => {
                let mut command = Command::new(self.zhaul.as_ref().with_context(missing)?);
                command
                    .args(["proxy", "--workers", "1"])
                    .args(["--listen", &listen.to_string(), "--to", &to.to_string()])
                    .args(&self.zhaul_args);
                Ok(command)
            }
            Contender::Haproxy | Contender::HaproxyCopy => {
                let file = home.join("haproxy.cfg");
                let splice = contender == Contender::Haproxy;
                fs::write(&file, haproxy(listen, to, splice, self.nofile))?;
                let mut command = Command::new(self.haproxy.as_ref().with_context(missing)?);
                command.arg("-db").arg("-f").arg(file);
                Ok(command)
            }
            Contender::NginxStream => {
                let file = home.join("nginx.conf");
                fs::write(&file, nginx(listen, to, home, self.nofile))?;
                let mut command = Command::new(self.nginx.as_ref().with_context(missing)?);
                command.arg("-p").arg(home).arg("-c").arg(file);
                command.arg("-e").arg(home.join("error.log"));
                Ok(command)
            }
            Contender::FloorSplice | Contender::FloorCopy => {
                // Not current_exe(): a rebuild during the run replaces the file of that name.
                let mut command = Command::new("/proc/self/exe");
                command.args(["floor", contender.name()]);
                command.args(["--listen", &listen.to_string(), "--to", &to.to_string()]);
                Ok(command)
            }
            _ => bail!("{} is no proxy", contender.name()),
        }
    }
}

/// A pipe for every fourth connection is HAProxy's default; 3,000 are more than the streams.
fn haproxy(listen: SocketAddrV4, to: SocketAddrV4, splice: bool, nofile: u64) -> String {
    let connections = (nofile.saturating_sub(SPARE_FDS) / 2).min(MOST_CONNECTIONS);
    let option = if splice {
        "    option splice-auto\n"
    } else {
        ""
    };
    format!(
        "global
    nbthread 1
    maxconn {connections}
    no strict-limits
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
{option}listen bench
    bind {listen} backlog 4096
    server backend {to}
"
    )
}

fn nginx(listen: SocketAddrV4, to: SocketAddrV4, home: &Path, nofile: u64) -> String {
    let connections = nofile.min(2 * MOST_CONNECTIONS);
    // Debian builds it as a module; elsewhere it is part of the program.
    let module = Path::new(STREAM_MODULE);
    let load = if module.is_file() {
        format!("load_module {STREAM_MODULE};\n")
    } else {
        String::new()
    };
    let home = home.display();
    format!(
        r#"{load}daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile {nofile};
pid "{home}/nginx.pid";
error_log "{home}/error.log" warn;
events {{
    use epoll;
    worker_connections {connections};
}}
stream {{
    server {{
        listen {listen} backlog=4096;
        proxy_pass {to};
        proxy_timeout 1h;
    }}
}}
"#
    )
}

const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const MOST_CONNECTIONS: u64 = 12_000;
const SPARE_FDS: u64 = 200;
