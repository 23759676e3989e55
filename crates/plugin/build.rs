//! Builds the server of Python workers (crates/worker-python), which this crate carries: an
//! extension module, so that `cargo build -p mfserv` stays the whole build.

use std::env;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let crates = ["crates/worker-python", "crates/h1", "crates/pull", "crates/websocket"];
    for watched in crates.into_iter().chain(["Cargo.toml", "Cargo.lock"]) {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let module = PathBuf::from(env::var("OUT_DIR")?).join("worker.so");
    // Rust makes no shared libraries for musl: workers fall back to the server in Python.
    let text = match env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|kind| kind == "musl") {
        true => Vec::new(),
        false => fs::read(build(&root)?)?,
    };
    // It is told from another one by this, each time that something is built: by all of its bytes
    // that would take as long as the rest.
    let mut digest = DefaultHasher::new();
    digest.write(&text);
    println!("cargo::rustc-env=MFSERV_WORKER_DIGEST={:016x}", digest.finish());
    Ok(fs::write(module, text)?)
}

/// Runs cargo once more, in a directory of its own: the one that is running holds the lock of
/// the usual one.
#[expect(clippy::disallowed_methods, reason = "a build script starts the compiler")]
fn build(root: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let (target, profile) = (env::var("TARGET")?, env::var("PROFILE")?);
    let place = PathBuf::from(env::var("OUT_DIR")?).join("worker");
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.current_dir(root).args(["rustc", "--quiet", "--locked"]);
    cargo.args(["--package", "mfserv-worker-python", "--lib", "--crate-type", "cdylib"]);
    cargo.args(["--target", &target]).arg("--target-dir").arg(&place);
    if profile == "release" {
        cargo.arg("--release");
    }
    cargo.args(["--", "-C", "strip=symbols"]);
    // It is loaded by any Python from 3.10 on: the one of this machine, if any, does not matter.
    cargo.env("PYO3_NO_PYTHON", "1").env("PYO3_BUILD_EXTENSION_MODULE", "1");
    // It is stripped: nobody would see what these make.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    // Those of the cargo that is running: of a lint, or of tests.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTC_WORKSPACE_WRAPPER");
    if !cargo.status()?.success() {
        return Err("crates/worker-python does not build: see above".into());
    }
    Ok(place.join(target).join(profile).join("libmfserv_worker_python.so"))
}
