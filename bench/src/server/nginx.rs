//! nginx's configuration: one worker, its own advice for static files, nothing that costs extra.
//!
//! `master_process off` makes the started process the worker itself, so that there is one pid to
//! measure and to end. The event loop is the same function as a worker's.

use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;

use super::Contender;

#[derive(Debug)]
pub(super) struct Config<'a> {
    pub(super) contender: Contender,
    pub(super) root: &'a Path,
    pub(super) address: SocketAddrV4,
    pub(super) nofile: u64,
}

impl Config<'_> {
    /// Writes the configuration to `home` and returns the command that runs it.
    pub(super) fn command(&self, program: &Path, home: &Path) -> io::Result<Command> {
        let file = home.join("nginx.conf");
        fs::write(&file, self.render(home))?;
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(home)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(home.join("error.log"));
        Ok(command)
    }

    fn render(&self, home: &Path) -> String {
        let Self {
            root,
            address,
            nofile,
            ..
        } = self;
        let variant = match self.contender {
            Contender::NginxCached => "open_file_cache max=1000 inactive=60s;",
            Contender::NginxAio => "aio threads;",
            _ => "",
        };
        // nginx allocates its connections up front: more than any case needs would be charged to
        // its memory.
        let connections = (*nofile).min(MOST_CONNECTIONS);
        let (home, root) = (home.display(), root.display());
        format!(
            r#"daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile {nofile};
pid "{home}/nginx.pid";
error_log "{home}/error.log" warn;
events {{
    use epoll;
    worker_connections {connections};
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    default_type application/octet-stream;
    client_body_temp_path "{home}/body";
    proxy_temp_path "{home}/proxy";
    fastcgi_temp_path "{home}/fastcgi";
    uwsgi_temp_path "{home}/uwsgi";
    scgi_temp_path "{home}/scgi";
    {variant}
    server {{
        listen {address} backlog=4096;
        root "{root}";
    }}
}}
"#
        )
    }
}

const MOST_CONNECTIONS: u64 = 12_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn config(contender: Contender) -> String {
        Config {
            contender,
            root: Path::new("/srv/files"),
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8099),
            nofile: 20_000,
        }
        .render(Path::new("/tmp/home"))
    }

    #[test]
    fn variants_differ_in_one_directive() {
        let (plain, cached) = (config(Contender::Nginx), config(Contender::NginxCached));
        let aio = config(Contender::NginxAio);
        assert!(cached.contains("open_file_cache max=1000 inactive=60s;"));
        assert!(aio.contains("aio threads;"));
        assert!(!plain.contains("open_file_cache") && !plain.contains("aio"));
        let differing = |other: &str| {
            plain
                .lines()
                .zip(other.lines())
                .filter(|(ours, theirs)| ours != theirs)
                .count()
        };
        assert_eq!((differing(&cached), differing(&aio)), (1, 1));
    }

    #[test]
    fn everything_that_nginx_writes_stays_in_its_home() {
        for line in config(Contender::Nginx)
            .lines()
            .filter(|line| line.contains("\"/"))
        {
            assert!(
                line.contains("/tmp/home/") || line.contains("/srv/files"),
                "{line}"
            );
        }
    }

    #[test]
    fn nginx_accepts_every_variant() {
        let Some(program) = crate::server::find_program("nginx") else {
            zhaul_untested::skip_this("nginx is not installed");
            return;
        };
        for contender in [
            Contender::Nginx,
            Contender::NginxCached,
            Contender::NginxAio,
        ] {
            let home = tempfile::tempdir().unwrap();
            let address = crate::server::free_address().unwrap();
            let config = Config {
                contender,
                root: home.path(),
                address,
                nofile: 1024,
            };
            let output = config
                .command(&program, home.path())
                .unwrap()
                .arg("-t")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{contender:?}: {said}");
        }
    }
}
