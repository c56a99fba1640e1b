//! Tells the bench where the build of `treeline` left the eBPF objects.

use std::env;

fn main() -> Result<(), env::VarError> {
    let directory = env::var("DEP_TREELINE_OBJECTS_DIRECTORY")?;
    println!("cargo::rustc-env=TREELINE_OBJECTS={directory}");
    Ok(())
}
