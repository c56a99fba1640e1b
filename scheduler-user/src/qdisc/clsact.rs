//! The `clsact` qdisc, where programs hook in on kernels without TCX.

use nix::libc;

use super::{
    QdiscError,
    netlink::{CLSACT, Netlink, TcObject},
};

/// Handle of the clsact qdisc (`TC_H_MAKE(TC_H_CLSACT, 0)`).
const CLSACT_HANDLE: u32 = 0xffff_0000;

/// Removes the `clsact` qdisc of an interface unless filters of others hang on it.
///
/// Returns whether it is gone.
pub async fn remove_clsact(ifindex: u32) -> Result<bool, QdiscError> {
    /// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` below the clsact handle.
    const HOOKS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
    let netlink = Netlink::open(ifindex).await?;
    for hook in HOOKS {
        if !netlink.filters(hook).await?.is_empty() {
            return Ok(false);
        }
    }
    let qdisc = TcObject::named(CLSACT_HANDLE, CLSACT);
    netlink
        .change("remove clsact", libc::RTM_DELQDISC, 0, &qdisc)
        .await?;
    Ok(true)
}
