# SPDX-License-Identifier: Apache-2.0
"""Its place puts this folder on the import path, so that tests in folders below find the shared helpers here."""
