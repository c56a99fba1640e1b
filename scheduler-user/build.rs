//! Builds the eBPF object and hands it to the crate by `OUT_DIR`.

use anyhow::Context as _;
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    // SAFETY: a build script's main thread; no other thread has been started.
    unsafe {
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
    }
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_unset| "stable".to_owned());
    let package = Package {
        name: "scheduler-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../scheduler-ebpf"),
        features: &["kernel"],
        ..Package::default()
    };
    build_ebpf([package], Toolchain::Custom(&toolchain)).context(
        "the eBPF object could not be built; `cargo xtask setup` installs rust-src and bpf-linker",
    )?;
    // For the bench, whose programs are another binary of the same package.
    let objects = std::env::var("OUT_DIR").context("cargo gave no OUT_DIR")?;
    println!("cargo::metadata=directory={objects}");
    Ok(())
}
