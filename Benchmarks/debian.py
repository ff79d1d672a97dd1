# SPDX-License-Identifier: MIT
"""Files of Debian's packages, without installing them."""
import shutil
import subprocess
import sys
from pathlib import Path


def unpack(packages, folder):
    """Downloads packages by apt and unpacks each into folder/unpacked/NAME; the folder of that."""
    folder = Path(folder).absolute()
    for part in ("packages", "unpacked"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    missing = [name for name in packages if not (folder / "unpacked" / name).is_dir()]
    if missing:
        print(f"downloading {len(missing)} packages …", file=sys.stderr)
        subprocess.run(["apt-get", "download", "-q=2", *missing], cwd=folder / "packages", check=True)
    for name in missing:
        archive, = (folder / "packages").glob(f"{name}_*.deb")
        target = folder / "unpacked" / name
        partial = target.parent / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
        partial.rename(target)
    return folder / "unpacked"
