#!/bin/sh
# Install packages into /opt/amarre without what only builds, tests and debuggers read.
# Usage: install.sh ARGUMENT-OF-PIP...
set -eu
[ -d /opt/amarre ] || python -m venv --without-pip /opt/amarre
python -m pip --python /opt/amarre/bin/python install --no-cache-dir --no-compile --no-deps "$@"
cd /opt/amarre/lib/python3*/site-packages
# Libraries that auditwheel has patched do not survive strip.
find . -name '*.so' -type f -not -path './*.libs/*' -exec strip --strip-unneeded {} +
find . -type f \( -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \) -delete
find . -type d \( -name tests -o -name testing \) -prune -exec rm -r {} +
# Databases that nothing here talks to.
rm -rf sqlalchemy/dialects/mssql sqlalchemy/dialects/mysql sqlalchemy/dialects/oracle
