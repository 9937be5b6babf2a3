//! Holds the manifest against the schemas of Kubernetes, with the package kubernetes-validate,
//! which contains them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Completion;

use crate::common::library::checkout;

const PACKAGE: &str = "kubernetes-validate==1.37.0";

pub fn manifest() -> PathBuf {
    checkout().join("examples/kubernetes/shop.yaml")
}

/// Installs the package, unless it is there.
fn install() -> Result<PathBuf, String> {
    let directory = checkout().join("target/test-kubernetes");
    if directory.join("kubernetes_validate").exists() {
        return Ok(directory);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    let installed = pip.arg(&directory).arg(PACKAGE).output();
    if installed.is_ok_and(|installed| installed.status.success()) {
        Ok(directory)
    } else {
        Err(format!("pip could not install {PACKAGE}"))
    }
}

/// Returns whether the schema accepts a manifest, and what was printed.
fn validate(packages: &Path, file: &Path) -> Result<(bool, String), String> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).args(["-m", "kubernetes_validate", "--strict"]).arg(file);
    let output = command.output().map_err(|error| format!("python3: {error}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

/// The manifest is valid, and one with a mistake is not.
///
/// # Errors
/// What was found wrong.
pub fn holds() -> Result<Completion, String> {
    let packages = match install() {
        Ok(packages) => packages,
        Err(reason) => return Ok(Completion::ignored_with(reason)),
    };
    let (is_valid, said) = validate(&packages, &manifest())?;
    if !is_valid {
        return Err(said);
    }
    let text = fs::read_to_string(manifest()).map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    for (right, wrong) in [("mountPath", "mountpath"), ("runAsNonRoot: true", "runAsNonRoot: sure")] {
        let file = directory.path().join("wrong.yaml");
        fs::write(&file, text.replace(right, wrong)).map_err(|error| error.to_string())?;
        if validate(&packages, &file)?.0 {
            return Err(format!("{wrong} is accepted, too"));
        }
    }
    Ok(Completion::Completed)
}
