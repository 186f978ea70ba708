"""The picture of both machines, drawn from their tables: `scripts/machines-doc`."""
