//! Hooks of an interface: attached, pinned, removed.

use std::{
    fs, io, mem, thread,
    time::{Duration, Instant},
};

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
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{Datapath, DatapathError};
use crate::{
    ingress::Downlink,
    instance::{EgressHook, IngressHook, Record},
};

/// Priorities of filters run from 1; [`Order::Last`] leaves room for who must be behind everything.
const FIRST_PRIORITY: u16 = 1;
const LAST_PRIORITY: u16 = 0xff7e;
/// The kernel frees a link within such a time after its pin is gone.
const RELEASE: Duration = Duration::from_millis(500);

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

impl EgressChoice {
    /// The hook that this comes to on the running kernel.
    pub fn resolve(self) -> EgressHook {
        match self {
            Self::Tcx => EgressHook::Tcx,
            Self::Clsact => EgressHook::Clsact,
            Self::Auto => {
                let known = KernelVersion::current()
                    .is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0));
                if known {
                    EgressHook::Tcx
                } else {
                    EgressHook::Clsact
                }
            }
        }
    }
}

impl From<EgressHook> for EgressChoice {
    fn from(hook: EgressHook) -> Self {
        match hook {
            EgressHook::Tcx => Self::Tcx,
            EgressHook::Clsact => Self::Clsact,
        }
    }
}

/// Place of the egress program among those of others, which all go on running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Before the others: it sees every packet, also those that another program ends the chain for; a
    /// class that another program sets stands.
    #[default]
    First,
    /// Behind the others: what they have changed is what it sees, and its class stands.
    Last,
}

/// How an interface is to be hooked.
#[derive(Clone, Copy, Debug)]
pub struct Hooking {
    /// Hook on egress.
    pub egress: EgressChoice,
    /// Place on egress.
    pub order: Order,
    /// Whether ingress is wanted at all.
    pub ingress: bool,
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
        hooking: Hooking,
    ) -> Result<Hooks, DatapathError> {
        let (egress, added_clsact) =
            self.attach_egress((interface, ifindex), hooking.egress, hooking.order)?;
        let ingress = if hooking.ingress {
            self.attach_ingress((interface, ifindex))
        } else {
            Ok(None)
        };
        match ingress {
            Ok(ingress) => Ok(Hooks {
                egress,
                ingress,
                added_clsact,
            }),
            Err(error) => {
                self.detach_egress((interface, ifindex), egress)?;
                Err(error)
            }
        }
    }

    /// Attaches the egress program alone; says how, and whether clsact was added for it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach_egress(
        &self,
        (interface, ifindex): (&str, u32),
        choice: EgressChoice,
        order: Order,
    ) -> Result<(EgressHook, bool), DatapathError> {
        let hook = choice.resolve();
        let added_clsact = match hook {
            EgressHook::Tcx => {
                self.attach_tcx((interface, ifindex), order)?;
                false
            }
            EgressHook::Clsact => self.attach_clsact(interface, order)?,
        };
        Ok((hook, added_clsact))
    }

    /// Detaches all programs of a recorded interface; what is gone already is fine.
    ///
    /// # Errors
    /// If a link can't be removed.
    pub fn detach(&self, record: &Record) -> Result<(), DatapathError> {
        self.detach_egress((&record.name, record.ifindex), record.egress_hook)?;
        if let Some(Downlink {
            device,
            ifindex,
            hook,
            ..
        }) = &record.downlink
        {
            self.detach_egress((device, *ifindex), *hook)?;
        }
        self.detach_ingress(record.ifindex)
    }

    /// Detaches the ingress program; one that is gone already is fine.
    ///
    /// # Errors
    /// If the link can't be removed.
    pub fn detach_ingress(&self, ifindex: u32) -> Result<(), DatapathError> {
        self.remove_link(ifindex, "ingress")
    }

    fn egress_program(&self) -> Result<SchedClassifier, DatapathError> {
        SchedClassifier::from_pin(self.program_pin(names::EGRESS))
            .map_err(|source| failed("open the egress program", source))
    }

    fn attach_tcx(
        &self,
        (interface, ifindex): (&str, u32),
        order: Order,
    ) -> Result<(), DatapathError> {
        let options = || {
            TcAttachOptions::TcxOrder(match order {
                Order::First => LinkOrder::first(),
                Order::Last => LinkOrder::last(),
            })
        };
        let fault = |source| {
            failed(
                "attach the egress program by TCX (kernel 6.6 and later; older ones have clsact)",
                source,
            )
        };
        let mut program = self.egress_program()?;
        let id = once_free(Instant::now() + RELEASE, || {
            program.attach_with_options(interface, TcAttachType::Egress, options())
        })
        .map_err(fault)?;
        let link = program.take_link(id).map_err(fault)?;
        let link = FdLink::try_from(link).map_err(|source| DatapathError::Link {
            path: interface.into(),
            source,
        })?;
        self.pin_link(link, ifindex, "egress")
    }

    /// Makes sure that an interface has clsact; returns whether it was added.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add_clsact(interface: &str) -> Result<bool, DatapathError> {
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => Ok(true),
            // Somebody has it already: EEXIST.
            Err(tc::TcError::NetlinkError(_)) => Ok(false),
            Err(source) => {
                let interface = interface.to_owned();
                Err(DatapathError::Clsact {
                    op: "add clsact",
                    interface,
                    source,
                })
            }
        }
    }

    /// Returns whether the `clsact` qdisc was added.
    fn attach_clsact(&self, interface: &str, order: Order) -> Result<bool, DatapathError> {
        let added = Self::add_clsact(interface)?;
        let fault = |source| failed("attach the egress program by clsact", source);
        let mut program = self.egress_program()?;
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: match order {
                Order::First => FIRST_PRIORITY,
                Order::Last => LAST_PRIORITY,
            },
            ..NlOptions::default()
        });
        let id = program
            .attach_with_options(interface, TcAttachType::Egress, options)
            .map_err(fault)?;
        // The filter belongs to the interface, not to this process.
        mem::forget(program.take_link(id).map_err(fault)?);
        Ok(added)
    }

    /// Attaches the ingress program alone; says how, or that another program has its place.
    ///
    /// # Errors
    /// If a link can't be pinned.
    pub fn attach_ingress(
        &self,
        (interface, ifindex): (&str, u32),
    ) -> Result<Option<IngressHook>, DatapathError> {
        let path = self.program_pin(names::INGRESS);
        let fault = |source| failed("attach the ingress program by XDP", source);
        let deadline = Instant::now() + RELEASE;
        let mut program = Xdp::from_pin(path, XdpAttachType::Interface).map_err(fault)?;
        let modes = [
            // By default the kernel falls back to generic mode without a word.
            (XdpMode::Driver, IngressHook::Xdp),
            (XdpMode::Skb, IngressHook::XdpGeneric),
        ];
        for (mode, hook) in modes {
            match once_free(deadline, || program.attach(interface, mode)) {
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
                        remedy = "`ip link set dev IFACE xdp off`, then `treeline up` again",
                        "egress is scheduled all the same; requests the other way are unknown to the model"
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

    /// Detaches the egress program; one that is gone already is fine.
    ///
    /// # Errors
    /// If the link can't be removed.
    pub fn detach_egress(
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

/// Attaches; where the place is taken, tries until `deadline`, as a link of ours that has just been removed
/// goes a moment later.
fn once_free<T>(
    deadline: Instant,
    mut attach: impl FnMut() -> Result<T, ProgramError>,
) -> Result<T, ProgramError> {
    loop {
        match attach() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                thread::sleep(RELEASE / 50);
            }
            outcome => return outcome,
        }
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
