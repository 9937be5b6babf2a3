"""Writes the list of what is in the published files (SBOM), as CycloneDX 1.6 in JSON.

    sbom.py --rust VERSION --musl VERSION --date SECONDS OUTPUT

VERSIONs are those of the Rust toolchain and of the musl that it links into the command.
The bytes depend on these, on Cargo.lock and on requirements.txt only.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import cargo_graph
import toolchain
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

REPOSITORY = "https://github.com/sopin/sopin"


def of_cargo(package: cargo_graph.Package) -> Component:
    """Returns the component for a package of Cargo."""
    is_ours = not package.sha256
    references = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(package.repository))]
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"cargo:{package.name}@{package.version}",
        scope=ComponentScope.REQUIRED if package.is_linked else ComponentScope.EXCLUDED,
        licenses=[LicenseExpression(package.license)] if package.license else [],
        # Members of the workspace are not in the registry.
        purl=None if is_ours else PackageURL("cargo", None, package.name, package.version),
        hashes=[] if is_ours else [HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
        external_references=references if package.repository else [],
    )


def of_toolchain(part: toolchain.Part) -> Component:
    """Returns the component for what the toolchain adds to the files."""
    kind = "cargo" if part.is_of_cargo else "generic"
    return Component(
        name=part.name,
        version=part.version,
        type=ComponentType.LIBRARY,
        # Cargo.lock may have the same package.
        bom_ref=f"rust-toolchain:{part.name}@{part.version}",
        scope=ComponentScope.REQUIRED,
        licenses=[LicenseExpression(part.license)],
        purl=PackageURL(kind, None, part.name, part.version),
        external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(part.repository))],
    )


def make(rust: str, musl: str, date: datetime) -> Bom:
    """Returns the list."""
    packages = cargo_graph.published()
    components = {key: of_cargo(package) for key, package in packages.items()}
    toolchain.check(rust)
    standard = of_toolchain(toolchain.STANDARD)
    below = [of_toolchain(part) for part in toolchain.BELOW_STANDARD]
    libc = of_toolchain(toolchain.musl(musl))
    library = next(key for key in packages if key[0] == "sopin")
    command = next(key for key in packages if key[0] == "sopin-cli")
    version = library[1]
    product = Component(
        name="sopin",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"sopin@{version}",
        licenses=[LicenseExpression(packages[library].license)],
        supplier=OrganizationalEntity(name="sopin developers", urls=[XsUri(REPOSITORY)]),
        purl=PackageURL("github", "sopin", "sopin", f"v{version}"),
    )
    metadata = BomMetaData(component=product, timestamp=date)
    everything = [*components.values(), standard, *below, libc]
    bom = Bom(components=everything, metadata=metadata, version=1)
    bom.register_dependency(product, [components[library], components[command]])
    for key, package in packages.items():
        needed = [components[dependency] for dependency in package.dependencies]
        # The command is linked with the standard library and musl, the library with `core`.
        needed += [standard] if key == library else [standard, libc] if key == command else []
        bom.register_dependency(components[key], needed)
    bom.register_dependency(standard, below)
    for component in [*below, libc]:
        bom.register_dependency(component, [])
    # The same list has the same number.
    names = " ".join(sorted(str(component.bom_ref) for component in everything))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{REPOSITORY} {version} {date.timestamp()} {names}")
    return bom


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rust", required=True)
    parser.add_argument("--musl", required=True)
    parser.add_argument("--date", required=True, type=int)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    bom = make(options.rust, options.musl, datetime.fromtimestamp(options.date, UTC))
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        print(f"sbom.py: the list breaks the schema: {error}", file=sys.stderr)
        return 1
    options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
