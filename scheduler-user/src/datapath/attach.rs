//! Hooks of an interface: attached, pinned, removed.

use std::{fs, io, mem};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp,
        links::FdLink,
        tc::{self, NlOptions, TcAttachOptions},
        xdp::XdpMode,
    },
    util::KernelVersion,
};
use aya_obj::programs::XdpAttachType;
use scheduler_common::names;
use tracing::{info, warn};

use super::{Datapath, DatapathError};
use crate::instance::{EgressHook, IngressHook, Record};

/// Which hook egress takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EgressChoice {
    /// TCX from kernel 6.6 on, else clsact.
    #[default]
    Auto,
    /// A TCX link.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

/// How an interface is hooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// The egress hook.
    pub egress: EgressHook,
    /// The ingress hook; `None` if another program has it.
    pub ingress: Option<IngressHook>,
    /// Whether the `clsact` qdisc was added for us.
    pub added_clsact: bool,
}

impl Datapath {
    /// Attaches both programs to an interface and pins the links.
    ///
    /// # Errors
    /// If egress can't be hooked; what was attached is removed then. An occupied XDP hook is no error:
    /// treeline goes on without seeing ingress, and says so.
    pub fn attach(
        &self,
        (interface, ifindex): (&str, u32),
        choice: EgressChoice,
    ) -> Result<Hooks, DatapathError> {
        let tcx = match choice {
            EgressChoice::Auto => {
                KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0))
            }
            EgressChoice::Tcx => true,
            EgressChoice::Clsact => false,
        };
        let (egress, added_clsact) = if tcx {
            self.attach_tcx(interface, ifindex)?;
            (EgressHook::Tcx, false)
        } else {
            (EgressHook::Clsact, self.attach_clsact(interface)?)
        };
        let ingress = match self.attach_xdp(interface, ifindex) {
            Ok(ingress) => ingress,
            Err(error) => {
                self.detach_egress((interface, ifindex), egress)?;
                return Err(error);
            }
        };
        Ok(Hooks {
            egress,
            ingress,
            added_clsact,
        })
    }

    /// Detaches both programs; what is gone already is fine.
    ///
    /// # Errors
    /// If a link can't be removed.
    pub fn detach(&self, record: &Record) -> Result<(), DatapathError> {
        self.detach_egress((&record.name, record.ifindex), record.egress_hook)?;
        self.remove_link(record.ifindex, "ingress")
    }

    fn egress_program(&self) -> Result<SchedClassifier, DatapathError> {
        SchedClassifier::from_pin(self.program_pin(names::EGRESS))
            .map_err(|source| failed("open the egress program", source))
    }

    fn attach_tcx(&self, interface: &str, ifindex: u32) -> Result<(), DatapathError> {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let fault = |source| {
            failed(
                "attach the egress program by TCX (kernel 6.6 and later; older ones have clsact)",
                source,
            )
        };
        let mut program = self.egress_program()?;
        let id = program
            .attach_with_options(interface, TcAttachType::Egress, options)
            .map_err(fault)?;
        let link = program.take_link(id).map_err(fault)?;
        let link = FdLink::try_from(link).map_err(|source| DatapathError::Link {
            path: interface.into(),
            source,
        })?;
        self.pin_link(link, ifindex, "egress")
    }

    /// Returns whether the `clsact` qdisc was added.
    fn attach_clsact(&self, interface: &str) -> Result<bool, DatapathError> {
        let added = match tc::qdisc_add_clsact(interface) {
            Ok(()) => true,
            // Somebody has it already: EEXIST.
            Err(tc::TcError::NetlinkError(_)) => false,
            Err(source) => {
                let interface = interface.to_owned();
                return Err(DatapathError::Clsact {
                    op: "add clsact",
                    interface,
                    source,
                });
            }
        };
        let fault = |source| failed("attach the egress program by clsact", source);
        let mut program = self.egress_program()?;
        let options = TcAttachOptions::Netlink(NlOptions::default());
        let id = program
            .attach_with_options(interface, TcAttachType::Egress, options)
            .map_err(fault)?;
        // The filter belongs to the interface, not to this process.
        mem::forget(program.take_link(id).map_err(fault)?);
        Ok(added)
    }

    fn attach_xdp(
        &self,
        interface: &str,
        ifindex: u32,
    ) -> Result<Option<IngressHook>, DatapathError> {
        let path = self.program_pin(names::INGRESS);
        let fault = |source| failed("attach the ingress program by XDP", source);
        let mut program = Xdp::from_pin(path, XdpAttachType::Interface).map_err(fault)?;
        let modes = [
            (XdpMode::Default, IngressHook::Xdp),
            (XdpMode::Skb, IngressHook::XdpGeneric),
        ];
        for (mode, hook) in modes {
            match program.attach(interface, mode) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(fault)?;
                    let link = FdLink::try_from(link).map_err(|source| DatapathError::Link {
                        path: interface.into(),
                        source,
                    })?;
                    self.pin_link(link, ifindex, "ingress")?;
                    return Ok(Some(hook));
                }
                Err(error) if is_busy(&error) => {
                    warn!(
                        interface,
                        what = "ingress is not observed",
                        why = "another XDP program is attached",
                        "requests the other way are unknown to the model"
                    );
                    return Ok(None);
                }
                Err(error) => {
                    info!(interface, ?mode, error = %error, "XDP mode refused, trying the next");
                }
            }
        }
        warn!(
            interface,
            what = "ingress is not observed",
            why = "the interface takes no XDP program"
        );
        Ok(None)
    }

    fn pin_link(&self, link: FdLink, ifindex: u32, hook: &str) -> Result<(), DatapathError> {
        let path = self.link_pin(ifindex, hook);
        link.pin(&path)
            .map(drop)
            .map_err(|source| DatapathError::Pin { path, source })
    }

    fn remove_link(&self, ifindex: u32, hook: &str) -> Result<(), DatapathError> {
        let path = self.link_pin(ifindex, hook);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DatapathError::Io {
                op: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    fn detach_egress(
        &self,
        (interface, ifindex): (&str, u32),
        hook: EgressHook,
    ) -> Result<(), DatapathError> {
        match hook {
            EgressHook::Tcx => self.remove_link(ifindex, "egress"),
            EgressHook::Clsact => {
                // A filter that is gone, or gone with its interface, is what we want.
                if let Err(error) =
                    tc::qdisc_detach_program(interface, TcAttachType::Egress, names::EGRESS)
                {
                    info!(interface, error = %error, "no clsact filter to remove");
                }
                Ok(())
            }
        }
    }

    /// Whether the interface still has its pinned egress link (TCX only).
    pub fn has_egress_link(&self, ifindex: u32) -> bool {
        self.link_pin(ifindex, "egress").exists()
    }
}

fn failed(op: &'static str, source: ProgramError) -> DatapathError {
    DatapathError::Program {
        op,
        source: Box::new(source),
    }
}

fn is_busy(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(syscall) => matches!(
            syscall.io_error.kind(),
            io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists
        ),
        _ => false,
    }
}
