//! The servers, each configured in the bench's own folder.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result};
use bed::{command, netns::SERVER_V4};

use crate::site::{Process, Site, find};

pub(crate) const WEB_PORT: u16 = 8080;
pub(crate) const WEB2_PORT: u16 = 8082;
pub(crate) const SSH_PORT: u16 = 2222;
/// Of the interactive session, apart from that of the copies.
pub(crate) const KEYS_PORT: u16 = 2223;
pub(crate) const RSYNC_PORT: u16 = 8730;
pub(crate) const DNS_PORT: u16 = 5300;
pub(crate) const REDIS_PORT: u16 = 6390;
pub(crate) const SIP_PORT: u16 = 5060;
/// iperf3 serves one client at a time: the application, the bulk of the background, the voice.
pub(crate) const IPERF_PORTS: [u16; 3] = [5201, 5202, 5203];

/// Names that the resolver knows.
pub(crate) const DNS_NAMES: usize = 200;
/// A page.
pub(crate) const PAGE_BYTES: usize = 10_000;
/// A file that a person waits for.
pub(crate) const FILE_BYTES: usize = 500_000;
/// What scp copies.
pub(crate) const COPY_BYTES: usize = 5_000_000;
/// A download in the background.
const LARGE_BYTES: usize = 20_000_000;
const TREE_FILES: usize = 150;
/// Eight bits at 8 kHz.
const TONE_BYTES: usize = 80_000;

/// A server that applications share.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Server {
    Nginx,
    Git,
    Sshd,
    Rsync,
    Unbound,
    Redis,
    Sip,
    Iperf,
}

impl Server {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it can't be started or does not serve in time; the message holds the end of its log.
    pub(crate) fn start(self, site: &Site<'_>) -> Result<Vec<Process>> {
        match self {
            Self::Nginx => nginx(site),
            Self::Git => git(site),
            Self::Sshd => sshd(site),
            Self::Rsync => {
                tree(site)?;
                site.write("rsyncd.conf", &rsyncd_conf(site))?;
                let line = format!(
                    "rsync --daemon --no-detach --address {SERVER_V4} --port {RSYNC_PORT} --config {{}}/rsyncd.conf"
                );
                listening(site, &line, RSYNC_PORT)
            }
            Self::Unbound => {
                site.write("unbound.conf", &unbound_conf(site))?;
                listening(site, "unbound -d -c {}/unbound.conf", DNS_PORT)
            }
            Self::Redis => {
                let conf = format!(
                    "bind {SERVER_V4}\nport {REDIS_PORT}\nprotected-mode no\nsave \"\"\nappendonly no\n"
                );
                site.write("redis.conf", &conf)?;
                listening(site, "redis-server {}/redis.conf", REDIS_PORT)
            }
            Self::Sip => {
                fs::write(site.path("tone.alaw"), noise(TONE_BYTES))?;
                let folder = site.folder.to_string_lossy();
                site.write(
                    "answer.xml",
                    &include_str!("answer.xml").replace("{}", &folder),
                )?;
                let line = format!(
                    "sipp -sf {{}}/answer.xml -i {SERVER_V4} -p {SIP_PORT} -mi {SERVER_V4} -nostdin"
                );
                Ok(vec![site.serve(site.command(&line)?)?])
            }
            Self::Iperf => {
                let mut servers = Vec::new();
                for port in IPERF_PORTS {
                    let line = format!("iperf3 -s -B {SERVER_V4} -p {port}");
                    servers.push(site.serve(site.urgent(&line)?)?);
                }
                for (port, server) in IPERF_PORTS.into_iter().zip(&mut servers) {
                    site.wait_for(port, server)?;
                }
                Ok(servers)
            }
        }
    }
}

fn listening(site: &Site<'_>, line: &str, port: u16) -> Result<Vec<Process>> {
    let mut server = site.serve(site.command(line)?)?;
    site.wait_for(port, &mut server)?;
    Ok(vec![server])
}

/// Bytes that do not compress, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}

fn nginx(site: &Site<'_>) -> Result<Vec<Process>> {
    let root = site.path("www");
    fs::create_dir_all(&root)?;
    let files = [
        ("page", PAGE_BYTES),
        ("file", FILE_BYTES),
        ("copy", COPY_BYTES),
        ("large", LARGE_BYTES),
    ];
    for (name, length) in files {
        fs::write(root.join(name), noise(length))?;
    }
    site.write("nginx.conf", &nginx_conf(site)?)?;
    listening(site, "nginx -p {} -c {}/nginx.conf", WEB_PORT)
}

fn nginx_conf(site: &Site<'_>) -> Result<String> {
    let folder = site.folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
        .concat();
    let backend = git_backend().unwrap_or_default();
    // The socket of git's backend need not be there for the other pages.
    Ok(format!(
        "user root;\nworker_processes 1;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000;\n{temporary}\
         \x20 server {{\n    listen {SERVER_V4}:{WEB_PORT};\n    root {folder}/www;\n\
         \x20   location ~ ^/git(/.*)$ {{\n      client_max_body_size 0;\n\
         \x20     fastcgi_param SCRIPT_FILENAME {backend};\n\
         \x20     fastcgi_param GIT_PROJECT_ROOT {folder}/git;\n\
         \x20     fastcgi_param GIT_HTTP_EXPORT_ALL 1;\n\
         \x20     fastcgi_param PATH_INFO $1;\n\
         \x20     fastcgi_param QUERY_STRING $query_string;\n\
         \x20     fastcgi_param REQUEST_METHOD $request_method;\n\
         \x20     fastcgi_param CONTENT_TYPE $content_type;\n\
         \x20     fastcgi_param CONTENT_LENGTH $content_length;\n\
         \x20     fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;\n\
         \x20     fastcgi_pass unix:{folder}/git.socket;\n    }}\n  }}\n\
         \x20 server {{ listen {SERVER_V4}:{WEB2_PORT} http2; root {folder}/www; }}\n}}\n"
    ))
}

fn git_backend() -> Result<String> {
    let folder = command::run("git", "--exec-path")?;
    Ok(format!("{}/git-http-backend", folder.trim()))
}

/// The same files as rsync's, in one commit, behind nginx.
fn git(site: &Site<'_>) -> Result<Vec<Process>> {
    tree(site)?;
    let work = site.path("tree");
    let bare = site.path("git/project.git");
    let git = |line: &str| {
        let mut command = Command::new("git");
        command.current_dir(&work).env("HOME", site.folder);
        command::output(command.args(line.split_whitespace()))
    };
    git("init --quiet")?;
    git("add .")?;
    git("-c user.name=bench -c user.email=bench@example.com commit --quiet -m files")?;
    fs::create_dir_all(site.path("git"))?;
    git(&format!("clone --quiet --bare . {}", bare.display()))?;
    fs::remove_dir_all(work.join(".git"))?;
    let fcgi = site.serve(site.command("fcgiwrap -c 2 -s unix:{}/git.socket")?)?;
    Ok(vec![fcgi])
}

/// Files of 1 to 90 kB, about 5 MB in all.
fn tree(site: &Site<'_>) -> Result<()> {
    let folder = site.path("tree");
    if folder.exists() {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    let bytes = noise(100_000);
    for number in 0..TREE_FILES {
        let length = 1_000 + (number * number * 4) % 90_000;
        // Another beginning each, so that git finds nothing to share.
        let from = number * 37 % 9_000;
        let part = &bytes[from..from + length];
        fs::write(folder.join(format!("file-{number}")), part)?;
    }
    Ok(())
}

fn rsyncd_conf(site: &Site<'_>) -> String {
    format!(
        "use chroot = no\nuid = root\ngid = root\nmax connections = 0\n[tree]\npath = {}\nread only = yes\n",
        site.path("tree").display()
    )
}

fn unbound_conf(site: &Site<'_>) -> String {
    let folder = site.folder.display();
    let mut text = format!(
        "server:\n  interface: {SERVER_V4}\n  port: {DNS_PORT}\n  username: \"\"\n  chroot: \"\"\n\
         \x20 directory: \"{folder}\"\n  pidfile: \"{folder}/unbound.pid\"\n  use-syslog: no\n\
         \x20 num-threads: 1\n  access-control: 0.0.0.0/0 allow\n  module-config: \"iterator\"\n\
         \x20 local-zone: \"bed.test.\" static\n"
    );
    for number in 0..DNS_NAMES {
        text.push_str(&format!(
            "  local-data: \"n{number}.bed.test. A 192.0.2.{}\"\n",
            1 + number % 250
        ));
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    text
}

/// Where Debian's sshd wants an empty folder of root's.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

fn sshd(site: &Site<'_>) -> Result<Vec<Process>> {
    fs::create_dir_all(PRIVILEGE_SEPARATION)
        .with_context(|| format!("sshd needs {PRIVILEGE_SEPARATION}"))?;
    for name in ["host_key", "user_key"] {
        let path = site.path(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&path);
        command::output(&mut keygen)?;
    }
    fs::copy(site.path("user_key.pub"), site.path("authorized"))?;
    fs::set_permissions(site.path("authorized"), fs::Permissions::from_mode(0o600))?;
    let folder = site.folder.display();
    site.write(
        "sshd.conf",
        &format!(
            "Port {SSH_PORT}\nListenAddress {SERVER_V4}\nHostKey {folder}/host_key\n\
             AuthorizedKeysFile {folder}/authorized\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nMaxStartups 100\nPrintMotd no\nSubsystem sftp internal-sftp\n"
        ),
    )?;
    // sshd runs itself again for each connection and so wants its whole path.
    let path = find("sshd").context("sshd is not installed")?;
    let line = format!("{} -D -e -f {{}}/sshd.conf", path.display());
    let mut servers = listening(site, &line, SSH_PORT)?;
    let own = site.urgent(&format!("{line} -p {KEYS_PORT}"))?;
    let mut own = site.serve(own)?;
    site.wait_for(KEYS_PORT, &mut own)?;
    servers.push(own);
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_as_long_as_asked_and_does_not_repeat() {
        let bytes = noise(100_001);
        assert_eq!(bytes.len(), 100_001);
        assert_ne!(bytes[..1000], bytes[1000..2000]);
    }
}
