//! The socket's file: who may open it, and when it goes.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::unistd::Group as SystemGroup;
use tokio::net::{UnixListener, UnixSocket};

use crate::instance::{Instance, InstanceError};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 64;
/// The owner, who is root.
const OWNER_ONLY: u32 = 0o600;
/// The owner and a group that was named.
const WITH_GROUP: u32 = 0o660;
/// Reading and writing: a socket has no more.
const MEANINGFUL: u32 = 0o666;

/// Why the socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nowhere to put it.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The file system or the kernel refuses.
    #[error("cannot {op} the control socket {}", path.display())]
    Io {
        /// What was attempted.
        op: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why nobody can be let in so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No such group.
    #[error(
        "there is no group `{0}`: `groupadd --system {0}` makes one, `getent group` lists those that exist"
    )]
    NoGroup(String),
    /// No mode.
    #[error(
        "`{0}` is no mode of a socket: three octal digits of 0, 2, 4, 6 are needed, such as 600 or 660"
    )]
    Mode(String),
}

/// A group of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    name: String,
    gid: u32,
}

/// Permissions of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u32);

impl FromStr for Group {
    type Err = AccessError;

    fn from_str(name: &str) -> Result<Self, AccessError> {
        let found = SystemGroup::from_name(name).ok().flatten();
        let group = found.ok_or_else(|| AccessError::NoGroup(name.to_owned()))?;
        Ok(Self {
            name: name.to_owned(),
            gid: group.gid.as_raw(),
        })
    }
}

impl FromStr for Mode {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let wrong = || AccessError::Mode(text.to_owned());
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3);
        let digits = digits.unwrap_or(text);
        if digits.len() != 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode & !MEANINGFUL == 0 => Ok(Self(mode)),
            _ => Err(wrong()),
        }
    }
}

/// Who may open the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Group that owns it; the agent's own without one.
    pub group: Option<Group>,
    /// Its mode; without one 0600, or 0660 where a group is named.
    pub mode: Option<Mode>,
}

impl Access {
    fn mode(&self) -> u32 {
        match (self.mode, &self.group) {
            (Some(Mode(mode)), _) => mode,
            (None, Some(_)) => WITH_GROUP,
            (None, None) => OWNER_ONLY,
        }
    }
}

/// The open socket; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: Unlinked,
}

/// A file that is removed at the end.
#[derive(Debug)]
pub(super) struct Unlinked(PathBuf);

impl Drop for Unlinked {
    fn drop(&mut self) {
        // What stays hinders nobody: nothing answers, and the next start makes it anew.
        drop(fs::remove_file(&self.0));
    }
}

impl Socket {
    /// Opens it; the caller holds the agent's lock, so a socket that stands there is a dead agent's.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn open(instance: &Instance, access: &Access) -> Result<Self, ControlError> {
        Instance::ensure(&instance.runtime())?;
        Self::open_at(&instance.control_socket(), access)
    }

    pub(super) fn open_at(path: &Path, access: &Access) -> Result<Self, ControlError> {
        let failed = |op| {
            move |source| ControlError::Io {
                op,
                path: path.to_owned(),
                source,
            }
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove what stands in the place of")(error));
            }
            _ => {}
        }
        let socket = UnixSocket::new_stream().map_err(failed("make"))?;
        socket.bind(path).map_err(failed("bind"))?;
        let file = Unlinked(path.to_owned());
        // Nobody can connect before it listens, so nobody slips in with the permissions that it was born with.
        if let Some(group) = &access.group {
            chown(path, None, Some(group.gid)).map_err(failed("give a group to"))?;
        }
        let mode = fs::Permissions::from_mode(access.mode());
        fs::set_permissions(path, mode).map_err(failed("set the mode of"))?;
        let listener = socket.listen(BACKLOG).map_err(failed("listen on"))?;
        Ok(Self { listener, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.0
    }

    pub(super) fn split(self) -> (UnixListener, Unlinked) {
        (self.listener, self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_the_owners_alone_unless_somebody_says_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let open = |access: &Access| Socket::open_at(&path, access).unwrap();
        drop(open(&Access::default()));
        assert!(!path.exists(), "the file goes with the socket");
        let socket = open(&Access::default());
        assert_eq!(mode_of(socket.path()), 0o600);
        drop(socket);
        let own = SystemGroup::from_gid(nix::unistd::getegid()).unwrap();
        let group: Group = own
            .expect("a group of ours has a name")
            .name
            .parse()
            .unwrap();
        let access = Access {
            group: Some(group.clone()),
            mode: None,
        };
        let socket = open(&access);
        assert_eq!(mode_of(socket.path()), 0o660);
        assert_eq!(fs::metadata(&path).unwrap().gid(), group.gid);
        drop(socket);
        let access = Access {
            mode: Some("666".parse().unwrap()),
            ..access
        };
        assert_eq!(mode_of(open(&access).path()), 0o666);
    }

    #[tokio::test]
    async fn what_a_dead_agent_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let socket = Socket::open_at(&path, &Access::default()).unwrap();
        // As after a kill: the file stays, and nobody listens.
        std::mem::forget(socket.file);
        drop(socket.listener);
        let refused = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _socket = Socket::open_at(&path, &Access::default()).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn modes_are_octal_and_without_what_a_socket_has_no_use_for() {
        assert_eq!("660".parse(), Ok(Mode(0o660)));
        assert_eq!("0600".parse(), Ok(Mode(0o600)));
        for wrong in ["", "6", "777", "668", "rw", "+60", "0o600", "00600"] {
            let error = wrong.parse::<Mode>().unwrap_err().to_string();
            assert!(error.contains("such as 600"), "{wrong}: {error}");
        }
        let error = "no-such-group".parse::<Group>().unwrap_err().to_string();
        assert!(error.contains("groupadd"), "{error}");
    }
}
