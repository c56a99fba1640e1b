//! Links the kernel programs without calls to `memset` and its kin.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // By default bpf-linker turns even the zeroing of 16 bytes into a call of a loop over bytes.
        println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
