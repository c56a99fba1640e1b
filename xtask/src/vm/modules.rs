//! Kernel modules that the tests need, in the order to insert them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// What a kernel has neither as a module nor built in is left to the tests to judge.
const WANTED: [&str; 29] = [
    "virtio_pci",
    "virtio_net",
    "veth",
    "dummy",
    "ifb",
    "tun",
    "8021q",
    "ipip",
    "ip_gre",
    "vxlan",
    "geneve",
    "wireguard",
    "tcp_bbr",
    "sch_htb",
    "sch_tbf",
    "sch_fq_codel",
    "sch_fq",
    "sch_prio",
    "sch_ets",
    "sch_cake",
    "sch_netem",
    "sch_mqprio",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "cls_matchall",
    "act_bpf",
    "act_mirred",
    "act_skbedit",
];

/// A module's name and what is to be inserted.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The wanted modules and all they depend on, dependencies first.
///
/// Packages hold no `modules.dep`, which is made at installation; a module itself tells what it
/// depends on.
pub(super) fn wanted(folder: &Path) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    collect(&folder.join("kernel"), &mut files)?;
    let mut chosen = Vec::new();
    for name in WANTED {
        add(name, &files, &mut chosen)?;
    }
    Ok(chosen)
}

fn add(name: &str, files: &HashMap<String, PathBuf>, chosen: &mut Vec<Module>) -> Result<()> {
    let known = chosen.iter().any(|module| module.name == name);
    let Some(file) = files.get(name).filter(|_| !known) else {
        return Ok(());
    };
    let bytes = read(file)?;
    for needed in dependencies(&bytes)
        .with_context(|| format!("{} says nothing of its dependencies", file.display()))?
    {
        add(&needed, files, chosen)?;
    }
    chosen.push(Module {
        name: name.to_owned(),
        bytes,
    });
    Ok(())
}

fn collect(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry.context("cannot read a folder of modules")?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `sch_htb` of `…/sch_htb.ko.xz`; the kernel knows no dashes in names.
fn module_name(path: &Path) -> Option<String> {
    let (stem, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(stem.replace('-', "_"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => {
            return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        }
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{} is compressed in an unknown way", file.display()),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    ensure!(
        output.status.success(),
        "`{program}` cannot unpack {}",
        file.display()
    );
    Ok(output.stdout)
}

/// The field `depends=` of the section `.modinfo`, whose fields end with a zero byte.
fn dependencies(module: &[u8]) -> Option<Vec<String>> {
    const FIELD: &[u8] = b"\0depends=";
    let at = module.windows(FIELD.len()).position(|text| text == FIELD)? + FIELD.len();
    let rest = module.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let names = std::str::from_utf8(rest.get(..end)?).ok()?;
    Some(
        names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| name.replace('-', "_"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_its_dependencies() {
        let module = b"\x7fELF\0license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0name=vxlan\0";
        assert_eq!(
            dependencies(module).unwrap(),
            ["udp_tunnel", "ip6_udp_tunnel"]
        );
        assert_eq!(dependencies(b"x\0depends=\0").unwrap(), [""; 0]);
        assert_eq!(dependencies(b"\x7fELF"), None);
    }

    #[test]
    fn a_module_is_named_as_the_kernel_names_it() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("/k/sch_htb.ko.xz").as_deref(), Some("sch_htb"));
        assert_eq!(name("/k/aes-x86.ko").as_deref(), Some("aes_x86"));
        assert_eq!(name("/k/modules.order"), None);
    }
}
